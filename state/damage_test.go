package state_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/state"
)

// The file of sampleNames has branches, leaves, free pages and two metas.
func sampleNames() []string {
	all := make([]string, 40)
	for i := range all {
		all[i] = fmt.Sprintf("vm-%02d", i)
	}
	return all
}

// sample is a sound database, grown over several transactions.
func sample(tb testing.TB) []byte {
	tb.Helper()
	f := newFixture(tb)
	f.put(tb, sampleNames()[:20]...)
	mustUpdate(tb, f.Store, func(tx *state.Tx) error {
		for _, name := range sampleNames() {
			if err := tx.PutMachine(machine(name)); err != nil {
				return err
			}
		}
		return tx.PutSnapshot(snapshot("s1", "vm-00"))
	})
	return readFile(tb, f.path)
}

const (
	pageSize = 4096
	// dataStart is where the two meta pages end.
	dataStart = 2 * pageSize
)

// damages are ways to spoil a sound database file.
func damages(sound []byte) map[string][]byte {
	all := map[string][]byte{
		"rubbish":    bytes.Repeat([]byte("rubbish! "), len(sound)/9),
		"text":       []byte("this is no database\n"),
		"all zeroed": make([]byte, len(sound)),
		"grown":      append(bytes.Clone(sound), bytes.Repeat([]byte{0xFF}, 3*pageSize+17)...),
	}
	for _, length := range []int{0, 1, 15, 16, 79, 80, 4095, 4096, 4097, 8191, 8192, 8193, 12288, 16384, 20000, 32768, len(sound) / 2, len(sound) - pageSize, len(sound) - 1} {
		all[fmt.Sprintf("truncated to %d", length)] = bytes.Clone(sound[:min(length, len(sound))])
	}
	for page := range len(sound) / pageSize {
		zeroed, doubled := bytes.Clone(sound), bytes.Clone(sound)
		clear(zeroed[page*pageSize : (page+1)*pageSize])
		all[fmt.Sprintf("page %d zeroed", page)] = zeroed
		other := (page + 1) % (len(sound) / pageSize)
		copy(doubled[page*pageSize:(page+1)*pageSize], sound[other*pageSize:])
		all[fmt.Sprintf("page %d over page %d", other, page)] = doubled
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same flips each time.
	for range 60 {
		at, bit := random.IntN(len(sound)), random.IntN(8)
		flipped := bytes.Clone(sound)
		flipped[at] ^= 1 << bit
		all[fmt.Sprintf("bit %d of byte %d flipped", bit, at)] = flipped
	}
	return all
}

func TestStore_damagedFile_nothingIsWrongSilently(t *testing.T) {
	sound := sample(t)
	for name, data := range damages(sound) {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			writeFile(t, f.path, data)

			seen, warnings := machines(t, f.Store)
			wantSound(t, seen, warnings)
			if !bytes.Equal(readFile(t, f.path), data) {
				t.Fatal("a View changed the file")
			}
			if len(seen) < len(sampleNames()) && len(warnings) == 0 {
				t.Errorf("%d machines are gone and nobody says so", len(sampleNames())-len(seen))
			}
			if len(warnings) > 0 && !strings.Contains(f.log.String(), "damaged") {
				t.Errorf("the log is silent: %s", f.log)
			}

			mustUpdate(t, f.another(t), func(tx *state.Tx) error { return tx.PutMachine(machine("new")) })
			after, _ := machines(t, f.another(t))
			want := append([]string{"new"}, names(seen)...)
			if diff := cmp.Diff(want, names(after)); diff != "" {
				t.Errorf("machines after an Update (-want +got):\n%s", diff)
			}
			wantAside(t, f, data, len(warnings) > 0)
		})
	}
}

// wantSound fails for a machine that is not as it was written.
func wantSound(t *testing.T, seen []*state.Machine, warnings []error) {
	t.Helper()
	for _, m := range seen {
		if diff := cmp.Diff(machine(m.Object.Metadata.Name), m); diff != "" {
			t.Errorf("a machine was changed (-want +got):\n%s", diff)
		}
	}
	for _, w := range warnings {
		wantError(t, w, state.ErrDamaged, "guest")
	}
}

// wantAside wants the damaged file kept, exactly as it was, or no such file.
func wantAside(t *testing.T, f *fixture, data []byte, damaged bool) {
	t.Helper()
	asides := f.asides(t)
	if !damaged {
		if len(asides) != 0 {
			t.Errorf("a sound file was set aside: %v", asides)
		}
		return
	}
	if len(asides) != 1 {
		t.Fatalf("files set aside: %v, want one", asides)
	}
	if !bytes.Equal(readFile(t, asides[0]), data) {
		t.Error("the file set aside is not the damaged one")
	}
	if !strings.Contains(f.log.String(), asides[0]) {
		t.Errorf("the log does not name %s: %s", asides[0], f.log)
	}
}

// TestExamine_everyFlip tries far more flips than could be tried on files.
func TestExamine_everyFlip_isHarmlessOrNoticed(t *testing.T) {
	sound := sample(t)
	whole, err := state.Examine(sound)
	if err != nil || len(whole.Damage) > 0 {
		t.Fatalf("the sample is damaged: %v %v", err, whole.Damage)
	}
	stride := 37
	if os.Getenv("MAQET_SOAK") != "" {
		stride = 1
	}
	noticed := 0
	for at := 0; at < len(sound); at += stride {
		data := bytes.Clone(sound)
		data[at] ^= 1 << (at / stride % 8)
		got, err := state.Examine(data)
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		if len(got.Damage) > 0 {
			noticed++
		}
		if at < dataStart {
			// A damaged meta page leads to the transaction before, whose
			// records are older; that must be noticed.
			if len(got.Damage) == 0 && !maps.Equal(got.Records, whole.Records) {
				t.Fatalf("byte %d: older records and no word", at)
			}
			continue
		}
		wantPart(t, at, got, whole)
	}
	if noticed == 0 {
		t.Error("no flip was noticed at all")
	}
}

func wantPart(t *testing.T, at int, got, whole state.Examined) {
	t.Helper()
	for place, record := range got.Records {
		if whole.Records[place] != record {
			t.Fatalf("byte %d: %s was changed and counts as sound", at, place)
		}
	}
	if len(got.Records) < len(whole.Records) && len(got.Damage) == 0 {
		t.Fatalf("byte %d: %d records are gone and no word", at, len(whole.Records)-len(got.Records))
	}
}

func TestExamine_recordOlderThanItShouldBe_isNoticed(t *testing.T) {
	data := sample(t)
	if !state.Backdate(data, "vm-07", `"restarts":2`, `"restarts":1`) {
		t.Fatal("the sample's vm-07 cannot be changed")
	}
	got, err := state.Examine(data)
	if err != nil || len(got.Damage) != 1 || !strings.Contains(got.Damage[0].Error(), "older") {
		t.Errorf("damage %v (%v), want one about an older record", got.Damage, err)
	}
}

// TestExamine_branchOfItself_ends: followed blindly, such a page has more ways
// down than can ever be walked.
func TestExamine_branchOfItself_ends(t *testing.T) {
	data := sample(t)
	branches := 0
	for page := 2; page < len(data)/pageSize; page++ {
		raw := data[page*pageSize : (page+1)*pageSize]
		if id, flags := binary.NativeEndian.Uint64(raw), binary.NativeEndian.Uint16(raw[8:]); id != uint64(page) || flags != 1 {
			continue
		}
		branches++
		for i := range int(binary.NativeEndian.Uint16(raw[10:])) {
			binary.NativeEndian.PutUint64(raw[16+16*i+8:], uint64(page))
		}
	}
	if branches == 0 {
		t.Fatal("the sample has no branch")
	}
	got, err := state.Examine(data)
	if err != nil || len(got.Damage) == 0 {
		t.Errorf("damage %v (%v), want some", got.Damage, err)
	}
}

func TestExamine_overlappingElements_areNoticed(t *testing.T) {
	data := sample(t)
	leaves := 0
	for page := 2; page < len(data)/pageSize; page++ {
		raw := data[page*pageSize : (page+1)*pageSize]
		if id, flags := binary.NativeEndian.Uint64(raw), binary.NativeEndian.Uint16(raw[8:]); id != uint64(page) || flags != 2 {
			continue
		}
		for i := range int(binary.NativeEndian.Uint16(raw[10:])) {
			leaves++
			header := raw[16+16*i:]
			pos, ksize := binary.NativeEndian.Uint32(header[4:]), binary.NativeEndian.Uint32(header[8:])
			binary.NativeEndian.PutUint32(header[12:], uint32(len(header))-pos-ksize) //nolint:gosec // to the end of the page.
		}
	}
	if leaves == 0 {
		t.Fatal("the sample has no leaf")
	}
	got, err := state.Examine(data)
	if err != nil || len(got.Damage) == 0 || !strings.Contains(errors.Join(got.Damage...).Error(), "larger than the page") {
		t.Errorf("damage %v (%v), want some about elements that are too large", got.Damage, err)
	}
}

func TestStore_oneDamagedRecord_othersAreFine(t *testing.T) {
	f := newFixture(t)
	data := sample(t)
	if !state.Corrupt(data, "vm-07") {
		t.Fatal("the sample has no vm-07")
	}
	writeFile(t, f.path, data)
	rest := slices.DeleteFunc(sampleNames(), func(name string) bool { return name == "vm-07" })

	seen, warnings := machines(t, f.Store)
	if diff := cmp.Diff(rest, names(seen)); diff != "" {
		t.Errorf("machines seen (-want +got):\n%s", diff)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0].Error(), "machine vm-07") {
		t.Errorf("warnings: %v, want one of machine vm-07", warnings)
	}

	f.put(t, "other")
	seen, warnings = machines(t, f.Store)
	if diff := cmp.Diff(append([]string{"other"}, rest...), names(seen)); diff != "" {
		t.Errorf("machines after an Update (-want +got):\n%s", diff)
	}
	if len(warnings) != 1 {
		t.Fatalf("warnings after an Update: %v, want one", warnings)
	}
	wantError(t, warnings[0], state.ErrDamaged, "machine vm-07", "state.db.damaged-", "apply")
	wantAside(t, f, data, true)

	f.put(t, "vm-07")
	if _, warnings = machines(t, f.Store); len(warnings) != 0 {
		t.Errorf("warnings although the record was replaced: %v", warnings)
	}
}

func TestStore_damagedRecordDeleted_isForgotten(t *testing.T) {
	f := newFixture(t)
	data := sample(t)
	state.Corrupt(data, "vm-07")
	writeFile(t, f.path, data)
	mustUpdate(t, f.Store, func(tx *state.Tx) error { return tx.DeleteMachine("vm-07") })
	if seen, warnings := machines(t, f.Store); len(seen) != len(sampleNames())-1 || len(warnings) != 0 {
		t.Errorf("%d machines, warnings %v; want %d and none", len(seen), warnings, len(sampleNames())-1)
	}
}

func TestStore_damage_isLoggedOnce(t *testing.T) {
	f := newFixture(t)
	data := sample(t)
	state.Corrupt(data, "vm-07")
	writeFile(t, f.path, data)
	for range 5 {
		machines(t, f.Store)
	}
	if n := strings.Count(f.log.String(), "vm-07"); n != 1 {
		t.Errorf("vm-07 is logged %d times, want once:\n%s", n, f.log)
	}
}

func TestStore_newerRecord_isRefusedAndUntouched(t *testing.T) {
	for name, tc := range map[string]struct {
		version uint16
		payload string
	}{
		"version":     {7, `{"entirely":"different"}`},
		"key":         {1, `{"owner":"x","aKeyOfTomorrow":1}`},
		"trailing":    {1, `{"owner":"x"} {}`},
		"other types": {1, `{"owner":{"name":"x"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.put(t, "a", "b")
			if err := state.Future(f.path, "b", tc.version, tc.payload); err != nil {
				t.Fatal(err)
			}
			before := readFile(t, f.path)
			mustView(t, f.Store, func(tx *state.Tx) error {
				if a, err := tx.Machine("a"); a == nil || err != nil {
					t.Errorf("machine a is %v (%v), want its record", a, err)
				}
				_, err := tx.Machine("b")
				wantError(t, err, state.ErrNewer, "machine b", "newer")
				_, err = tx.Machines()
				wantError(t, err, state.ErrNewer, "machine b")
				return nil
			})
			for _, change := range []func(*state.Tx) error{
				func(tx *state.Tx) error { return tx.PutMachine(machine("b")) },
				func(tx *state.Tx) error { return tx.DeleteMachine("b") },
			} {
				wantError(t, f.Update(t.Context(), change), state.ErrNewer, "machine b")
			}
			if !bytes.Equal(before, readFile(t, f.path)) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestStore_newerDatabase_isRefusedAndUntouched(t *testing.T) {
	f := newFixture(t)
	f.put(t, "a")
	if err := state.Future(f.path, "", 1, `{"version":2,"records":{},"digest":"0"}`); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, f.path)
	use := func(*state.Tx) error { return errors.New("the function ran") }
	wantError(t, f.View(t.Context(), use), state.ErrNewer, f.path, "newer", "nothing was changed")
	wantError(t, f.Update(t.Context(), use), state.ErrNewer, f.path)
	if !bytes.Equal(before, readFile(t, f.path)) || len(f.asides(t)) != 0 {
		t.Error("the file was changed or set aside")
	}
}

func FuzzExamine(f *testing.F) {
	sound := sample(f)
	whole, err := state.Examine(sound)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(8192), []byte{1, 0, 0, 0, 0, 0, 0, 0})
	f.Add(uint32(8200), []byte{0xFF, 0xFF, 0xFF, 0xFF})
	f.Add(uint32(16), []byte{0})
	f.Add(uint32(12288+12), []byte{0xFF, 0xFF, 0xFF, 0x7F})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		data := bytes.Clone(sound)
		copy(data[int(at)%len(data):], patch)
		got, err := state.Examine(data)
		if err != nil {
			t.Fatal(err)
		}
		if int(at)%len(data) >= dataStart {
			wantPart(t, int(at), got, whole)
		}
	})
}
