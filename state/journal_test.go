package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/state"
)

// diary is a state dir's journal and what its log said.
type diary struct {
	*state.Journal
	path, before string
	log          *bytes.Buffer
}

func newDiary(tb testing.TB, dir string, most int64) *diary {
	tb.Helper()
	d := &diary{path: filepath.Join(dir, "events.jsonl"), before: filepath.Join(dir, "events.1.jsonl"), log: &bytes.Buffer{}}
	d.Journal = openJournal(dir, most, slog.New(slog.NewTextHandler(d.log, nil)))
	return d
}

// openJournal is the journal of a process of its own, as far as that matters.
func openJournal(dir string, most int64, log *slog.Logger) *state.Journal {
	table := timing.Default()
	table.Events = patience
	return state.NewJournal(state.JournalConfig{
		Path: filepath.Join(dir, "events.jsonl"), Before: filepath.Join(dir, "events.1.jsonl"),
		LockPath: filepath.Join(dir+".locks", "events.lock"), Locks: filelock.New(), Timing: table, MaxBytes: most, Log: log,
	})
}

func event(machine, message string) state.Event {
	return state.Event{
		Time: time.Date(2026, 5, 4, 3, 2, 1, 5, time.UTC), Machine: machine, Type: state.EventNormal,
		Reason: state.EventStarted, Message: message, Who: "apply (pid 1, ann)", Generation: 2,
	}
}

func (d *diary) append(tb testing.TB, events ...state.Event) {
	tb.Helper()
	if err := d.Append(tb.Context(), events...); err != nil {
		tb.Fatal(err)
	}
}

// messages are those of the chosen events.
func (d *diary) messages(tb testing.TB, filter state.Filter) []string {
	tb.Helper()
	events, err := d.Read(tb.Context(), filter)
	if err != nil {
		tb.Fatal(err)
	}
	var texts []string
	for _, ev := range events {
		texts = append(texts, ev.Message)
	}
	return texts
}

func (d *diary) want(tb testing.TB, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, d.messages(tb, state.Filter{})); diff != "" {
		tb.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestJournalRead_neverWritten_isEmptyAndMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	d := newDiary(t, dir, 0)
	d.want(t)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading made the folder: %v", err)
	}
	wantError(t, d.Append(t.Context(), event("web", "a")), syscall.ENOENT, d.path, "--state-dir")
}

func TestJournalAppend_thenRead_givesTheSameEvents(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	want := []state.Event{event("web", "one"), event("db", `two "quoted" \ <&>`)}
	d.append(t, want...)
	got, err := d.Read(t.Context(), state.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	info, err := os.Stat(d.path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	began := time.Now()
	d.append(t, state.Event{Machine: "web"})
	if got, err = d.Read(t.Context(), state.Filter{Last: 1}); err != nil || got[0].Time.Before(began) {
		t.Errorf("an event without a time is %+v (%v)", got, err)
	}
}

func TestJournalRead_filter_choosesByMachineTimeAndNumber(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	for i := range 6 {
		ev := event([]string{"a", "b", "c"}[i%3], fmt.Sprint(i))
		ev.Time = ev.Time.Add(time.Duration(i) * time.Minute)
		d.append(t, ev)
	}
	since := event("", "").Time.Add(2 * time.Minute)
	for _, c := range []struct {
		filter state.Filter
		want   []string
	}{
		{state.Filter{}, []string{"0", "1", "2", "3", "4", "5"}},
		{state.Filter{Machines: []string{"b"}}, []string{"1", "4"}},
		{state.Filter{Machines: []string{"a", "c"}, Last: 3}, []string{"2", "3", "5"}},
		{state.Filter{Since: since}, []string{"2", "3", "4", "5"}},
		{state.Filter{Since: since, Last: 2}, []string{"4", "5"}},
		{state.Filter{Last: 9}, []string{"0", "1", "2", "3", "4", "5"}},
		{state.Filter{Last: -1}, nil},
		{state.Filter{Machines: []string{"nobody"}}, nil},
	} {
		if diff := cmp.Diff(c.want, d.messages(t, c.filter)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.filter, diff)
		}
	}
}

func TestJournalAppend_tornLastLine_isSkippedAndCutOff(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	d.append(t, event("web", "whole"))
	whole := readFile(t, d.path)
	for cut := 1; cut < len(whole); cut += 7 {
		writeFile(t, d.path, append(bytes.Clone(whole), whole[:cut]...))
		d.want(t, "whole")
		d.append(t, event("web", "next"))
		d.want(t, "whole", "next")
	}
	// Not even the first line may be whole, and the rest may be long.
	writeFile(t, d.path, bytes.Repeat([]byte{0}, 3*4096+5))
	d.append(t, event("web", "next"))
	d.want(t, "next")
	if d.log.Len() > 0 {
		t.Errorf("a torn line is no damage to warn of: %s", d.log)
	}
}

func TestJournalRead_damagedLines_areCountedAndLeftOut(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	d.append(t, event("web", "one"), event("web", "two"), event("web", "three"))
	lines := bytes.SplitAfter(readFile(t, d.path), []byte("\n"))
	for i := range len(lines[1]) - 1 {
		damaged := bytes.Clone(lines[1])
		damaged[i] ^= 0x01
		writeFile(t, d.path, bytes.Join([][]byte{lines[0], damaged, lines[2]}, nil))
		d.want(t, "one", "three")
	}
	if n := strings.Count(d.log.String(), "damaged_lines=1"); n != 1 {
		t.Errorf("warned %d times, want once: %s", n, d.log)
	}
	overlong := append(bytes.Repeat([]byte("x"), 1<<20), '\n')
	writeFile(t, d.path, bytes.Join([][]byte{overlong, lines[0], []byte("{}\n\n"), lines[2]}, nil))
	d.want(t, "one", "three")
	if !strings.Contains(d.log.String(), "damaged_lines=3") {
		t.Errorf("log: %s", d.log)
	}
}

func TestJournalAppend_manyEvents_areBoundedAndTheNewestStay(t *testing.T) {
	const most = 4096
	d := newDiary(t, t.TempDir(), most)
	const count = 200
	for i := range count {
		d.append(t, event("web", fmt.Sprint(i)))
		for _, path := range []string{d.path, d.before} {
			if info, err := os.Stat(path); err == nil && (info.Size() > most || info.Mode() != 0o600) {
				t.Fatalf("%s: %d bytes, mode %v", path, info.Size(), info.Mode())
			}
		}
	}
	got := d.messages(t, state.Filter{})
	if len(got) < 15 || len(got) > count/2 {
		t.Fatalf("%d events are left", len(got))
	}
	for i, text := range got {
		if want := fmt.Sprint(count - len(got) + i); text != want {
			t.Fatalf("event %d is %s, want %s", i, text, want)
		}
	}
	// One call that fills more than a part keeps its order, too.
	var many []state.Event
	for i := range 40 {
		many = append(many, event("db", fmt.Sprint(i)))
	}
	d.append(t, many...)
	got = d.messages(t, state.Filter{Machines: []string{"db"}})
	if len(got) == 0 || got[len(got)-1] != "39" {
		t.Errorf("events of the large batch: %v", got)
	}
}

func TestJournalAppend_diskFull_failsWithoutHarm(t *testing.T) {
	dir := smallDisk(t)
	d := newDiary(t, dir, 1<<20)
	d.append(t, event("web", "before"))
	ballast := fill(t, dir)
	var err error
	for range 1000 { // The last page of the file has room for some more.
		if err = d.Append(t.Context(), event("web", "during")); err != nil {
			break
		}
	}
	wantError(t, err, syscall.ENOSPC, d.path, "free some space")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	d.append(t, event("web", "after"))
	got := d.messages(t, state.Filter{})
	if got[0] != "before" || got[len(got)-1] != "after" || d.log.Len() > 0 {
		t.Errorf("events %v, log %s", got, d.log)
	}
}

func TestJournalAppend_lockHeldByAnother_givesUpInTime(t *testing.T) {
	dir := t.TempDir()
	table := timing.Default()
	table.Events = 20 * time.Millisecond
	lockPath := filepath.Join(dir, "events.lock")
	held, err := filelock.New().Lock(t.Context(), lockPath)
	if err != nil {
		t.Fatal(err)
	}
	j := state.NewJournal(state.JournalConfig{
		Path: filepath.Join(dir, "events.jsonl"), Before: filepath.Join(dir, "events.1.jsonl"), LockPath: lockPath, Timing: table,
	})
	wantError(t, j.Append(t.Context(), event("web", "a")), filelock.ErrHeld, "held by")
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(within(t, patience), event("web", "b")); err != nil {
		t.Error(err)
	}
}

func TestJournalAppend_cancelledContext_isRefused(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Both outcomes of the race are right; what may not happen is half an event.
	if err := d.Append(ctx, event("web", "a")); err != nil {
		wantError(t, err, context.Canceled, d.path)
	}
	d.append(t, event("web", "b"))
	if got := d.messages(t, state.Filter{}); got[len(got)-1] != "b" {
		t.Errorf("events: %v", got)
	}
}

func TestJournalAppend_foreignWords_becomeOneSafeLine(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	d.append(t,
		event("web", "first\nsecond\x1b[2J\x00\u202e end\xff"),
		event("web", strings.Repeat("\x01é", 10_000)),
	)
	got := d.messages(t, state.Filter{})
	if want := "first; second\ufffd[2J\ufffd\ufffd end\ufffd"; got[0] != want {
		t.Errorf("message %q, want %q", got[0], want)
	}
	if len(got[1]) > 4096 || !strings.HasSuffix(got[1], "...") {
		t.Errorf("a message of %d bytes ends in %q", len(got[1]), got[1][len(got[1])-8:])
	}
}

func TestJournalRead_anyBytes_neverPanics(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	d.append(t, event("web", "sound"))
	sound := readFile(t, d.path)
	rapid.Check(t, func(r *rapid.T) {
		noise := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(r, "noise")
		writeFile(t, d.path, bytes.Join([][]byte{sound, noise, []byte("\n"), sound}, nil))
		if got := d.messages(t, state.Filter{}); len(got) < 2 || got[0] != "sound" || got[len(got)-1] != "sound" {
			r.Fatalf("events: %v", got)
		}
	})
}
