package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/manifest"
)

func TestSnapshots_ofAStoppedMachine_takeRestoreDelete(t *testing.T) {
	b := newSnapBench(t, manifest.Disk{Name: "root", Size: 8 << 20}, manifest.Disk{Name: "given"}, manifest.Disk{Name: "ro", ReadOnly: true})
	for _, name := range []string{"root", "given"} {
		b.fill(t, name, "1")
	}
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("before")); err != nil {
		t.Fatal(err)
	}
	record := b.recorded(t, "before")
	if record.Consistency != ConsistencyStopped || record.UID != snapUID || record.Guest != nil ||
		!cmp.Equal(record.Disks, []string{"root", "given"}) || !cmp.Equal(record.Without, []string{"ro"}) {
		t.Errorf("the record is %+v", record)
	}
	for _, name := range []string{"root", "given"} {
		b.fill(t, name, "2")
	}
	report, err := b.restore(t.Context(), b.vm, b.observe(t), "before")
	if err != nil {
		t.Fatal(err)
	}
	want := driver.RestoreReport{
		Tag: "before", Disks: []string{"given", "root"}, Untouched: []string{"ro"}, Method: manifest.SnapshotDisk, Taken: record.Taken,
		Consistency: ConsistencyStopped, Note: "not in the snapshot and as they were: ro",
	}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("the report differs (-want +got):\n%s", diff)
	}
	for _, name := range []string{"root", "given"} {
		if !b.holds(t, name, "1") {
			t.Errorf("%s does not hold what it held", name)
		}
	}
	if err := b.remove(t.Context(), b.vm, b.observe(t), "before"); err != nil {
		t.Fatal(err)
	}
	if got := b.tagged(t, "before"); len(got) != 0 {
		t.Errorf("the snapshot is still on %q", got)
	}
	b.noRecord(t, "before")
}

func TestTakeSnapshot_tagThere_namesTheDisk(t *testing.T) {
	b := newSnapBench(t)
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("old")); err != nil {
		t.Fatal(err)
	}
	first := b.recorded(t, "old")
	err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("old"))
	var blocked *BlockedError
	if !errors.As(err, &blocked) || len(blocked.Blockers) != 2 || !strings.Contains(err.Error(), "maqet snapshot delete web old") {
		t.Errorf("got %v, want a blocker for each disk", err)
	}
	if diff := cmp.Diff(first, b.recorded(t, "old")); diff != "" {
		t.Errorf("the record changed:\n%s", diff)
	}
}

func TestRestoreSnapshot_dirtyBitmap_isRemovedAndTold(t *testing.T) {
	b := newSnapBench(t)
	b.fill(t, "data", "1")
	b.addBitmap(t, "data", "backup0")
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("a")); err != nil {
		t.Fatalf("a snapshot with a dirty bitmap: %v", err)
	}
	b.fill(t, "data", "2")
	report, err := b.restore(t.Context(), b.vm, b.observe(t), "a")
	if want := map[string][]string{"data": {"backup0"}}; err != nil || !cmp.Equal(report.Bitmaps, want) {
		t.Errorf("removed are %q, %v, want %q", report.Bitmaps, err, want)
	}
	if !b.holds(t, "data", "1") {
		t.Error("data is not what it was")
	}
}

// cutOff leaves what a run leaves that was killed when one disk of two was done.
func (b *snapBench) cutOff(t *testing.T, tag string, begun time.Time) {
	t.Helper()
	draft := newRecord(b.vm, b.observe(t), diskIntent(tag))
	draft.Taken = begun
	if err := b.writeDraft("web", draft); err != nil {
		t.Fatal(err)
	}
	if err := b.images.CreateSnapshot(t.Context(), map[string]string{"data": b.path(b.vm, "data")}, tag); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshots_runKilledInTheMiddle_nextOneTakesItWhole(t *testing.T) {
	for name, again := range map[string]func(*testing.T, *snapBench) error{
		"take": func(t *testing.T, b *snapBench) error {
			return b.take(t.Context(), b.vm, b.observe(t), diskIntent("cut"))
		},
		"finish": func(t *testing.T, b *snapBench) error {
			return b.finish(t.Context(), b.vm, b.observe(t), diskIntent("cut"))
		},
		"finish of the started machine": func(t *testing.T, b *snapBench) error {
			b.start(t)
			return b.finish(t.Context(), b.vm, b.observe(t), diskIntent("cut"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newSnapBench(t)
			b.cutOff(t, "cut", time.Now())
			if err := again(t, b); err != nil {
				t.Fatal(err)
			}
			if got := b.tagged(t, "cut"); !cmp.Equal(got, bothDisks) {
				t.Errorf("the snapshot is on %q", got)
			}
			b.recorded(t, "cut")
			b.noDraft(t, "cut")
		})
	}
}

func TestFinishSnapshot_runKilledBeforeTheRecord_writesIt(t *testing.T) {
	b := newSnapBench(t)
	draft := newRecord(b.vm, b.observe(t), diskIntent("cut"))
	if err := b.writeDraft("web", draft); err != nil {
		t.Fatal(err)
	}
	if err := b.images.CreateSnapshot(t.Context(), map[string]string{"data": b.path(b.vm, "data"), "root": b.path(b.vm, "root")}, "cut"); err != nil {
		t.Fatal(err)
	}
	if err := b.finish(t.Context(), b.vm, b.observe(t), diskIntent("cut")); err != nil {
		t.Fatal(err)
	}
	if got := b.recorded(t, "cut"); !got.Taken.Equal(draft.Taken) {
		t.Errorf("taken %v, want %v", got.Taken, draft.Taken)
	}
	b.noDraft(t, "cut")
}

func TestTakeSnapshot_olderSnapshotOfThatName_isSomebodyElsesAndStays(t *testing.T) {
	b := newSnapBench(t)
	b.cutOff(t, "theirs", time.Now().Add(time.Hour))
	var blocked *BlockedError
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("theirs")); !errors.As(err, &blocked) {
		t.Errorf("got %v, want a blocker", err)
	}
	if got := b.tagged(t, "theirs"); !cmp.Equal(got, []string{"data"}) {
		t.Errorf("the snapshot is on %q", got)
	}
}

func TestFinishSnapshot_tagThatMaqetDidNotTake_isTakenForWhatItIs(t *testing.T) {
	b := newSnapBench(t)
	paths := map[string]string{"data": b.path(b.vm, "data")}
	if err := b.images.CreateSnapshot(t.Context(), paths, "theirs"); err != nil {
		t.Fatal(err)
	}
	if err := b.finish(t.Context(), b.vm, b.observe(t), diskIntent("theirs")); !errors.Is(err, ErrSnapshotIncomplete) || !strings.Contains(err.Error(), "root") {
		t.Errorf("on one disk only: got %v, want ErrSnapshotIncomplete with root", err)
	}
	if got := b.tagged(t, "theirs"); !cmp.Equal(got, []string{"data"}) {
		t.Errorf("the snapshot is on %q", got)
	}
	if err := b.images.CreateSnapshot(t.Context(), map[string]string{"root": b.path(b.vm, "root")}, "theirs"); err != nil {
		t.Fatal(err)
	}
	if err := b.finish(t.Context(), b.vm, b.observe(t), diskIntent("theirs")); err != nil {
		t.Errorf("on all disks: %v", err)
	}
	if err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent("theirs")); !errors.Is(err, ErrSnapshotIncomplete) || !strings.Contains(err.Error(), "memory") {
		t.Errorf("as a full one: got %v, want ErrSnapshotIncomplete for want of memory", err)
	}
	b.noRecord(t, "theirs")
}

func TestRestoreSnapshot_fullOne_revertsDisksAndSaysMemoryIsNotRestored(t *testing.T) {
	b := newSnapBench(t)
	b.fill(t, "root", "1")
	b.start(t)
	if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent("full")); err != nil {
		t.Fatal(err)
	}
	b.awaitJob(t)
	if err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent("full")); err != nil {
		t.Fatal(err)
	}
	_, err := b.restore(t.Context(), b.vm, b.observe(t), "full")
	var failed *driver.LifecycleError
	if !errors.As(err, &failed) || failed.Hint != "stop it first with: maqet stop web" {
		t.Errorf("running: got %v, want a refusal with the remedy", err)
	}
	b.stop(t)
	b.fill(t, "root", "2")
	report, err := b.restore(t.Context(), b.vm, b.observe(t), "full")
	if err != nil {
		t.Fatal(err)
	}
	if !report.MemoryNotRestored || !strings.Contains(report.Note, "memory is not restored") || report.Consistency != ConsistencyMemory {
		t.Errorf("the report is %+v", report)
	}
	if !b.holds(t, "root", "1") {
		t.Error("root does not hold what it held")
	}
}

func TestRestoreSnapshot_notPossible_changesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*testing.T, *snapBench)
		want  error
		says  string
	}{
		"tag gone from one disk": {func(t *testing.T, b *snapBench) {
			if err := b.images.DeleteSnapshot(t.Context(), map[string]string{"root": b.path(b.vm, "root")}, "old"); err != nil {
				t.Fatal(err)
			}
		}, ErrSnapshotIncomplete, "root"},
		"disk gone": {func(t *testing.T, b *snapBench) {
			if err := os.Remove(b.path(b.vm, "root")); err != nil {
				t.Fatal(err)
			}
		}, os.ErrNotExist, "disk root"},
		"record of a newer maqet": {func(t *testing.T, b *snapBench) {
			if err := durable.WriteFile(b.layout.Snapshot("web", "old"), []byte(`{"version": 99, "tag": "old"}`), 0); err != nil {
				t.Fatal(err)
			}
		}, nil, "format 99"},
		"damaged record": {func(t *testing.T, b *snapBench) {
			if err := durable.WriteFile(b.layout.Snapshot("web", "old"), []byte(`{"versi`), 0); err != nil {
				t.Fatal(err)
			}
		}, nil, "old.json"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newSnapBench(t)
			if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("old")); err != nil {
				t.Fatal(err)
			}
			b.fill(t, "data", "2")
			obs := b.observe(t)
			test.spoil(t, b)
			_, err := b.restore(t.Context(), b.vm, obs, "old")
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.says)
			}
			if !b.holds(t, "data", "2") {
				t.Error("data was reverted all the same")
			}
		})
	}
}

func TestRestoreSnapshot_withoutRecord_needsTheTagOnEveryWritableDisk(t *testing.T) {
	b := newSnapBench(t)
	if _, err := b.restore(t.Context(), b.vm, b.observe(t), "never"); !errors.Is(err, ErrSnapshotIncomplete) {
		t.Errorf("no such tag: got %v, want ErrSnapshotIncomplete", err)
	}
	b.fill(t, "root", "1")
	if err := b.images.CreateSnapshot(t.Context(), map[string]string{"data": b.path(b.vm, "data"), "root": b.path(b.vm, "root")}, "theirs"); err != nil {
		t.Fatal(err)
	}
	b.fill(t, "root", "2")
	report, err := b.restore(t.Context(), b.vm, b.observe(t), "theirs")
	if err != nil || report.Taken.IsZero() || report.Method != "" {
		t.Errorf("got %+v, %v", report, err)
	}
	if !b.holds(t, "root", "1") {
		t.Error("root does not hold what it held")
	}
}

func TestTakeSnapshot_fileWithAnOddName_works(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a,b:c=d json:{} größe.qcow2")
	b := newSnapBench(t, manifest.Disk{Name: "root", File: file})
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("x")); err != nil {
		t.Fatal(err)
	}
	if got := b.tagged(t, "x"); !cmp.Equal(got, []string{"root"}) {
		t.Errorf("the snapshot is on %q", got)
	}
}
