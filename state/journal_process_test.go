package state_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/maqet/maqet/state"
)

// journalProcess is another process that appends so many events to the journal
// in a folder, and prints each number once it is written.
func journalProcess(t *testing.T, dir, own string, times int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir, own, strconv.Itoa(times)) //nolint:gosec,noctx // the test itself; killed by the test
	cmd.Env = append(os.Environ(), roleVariable+"=journal")
	cmd.Stderr = os.Stderr
	return cmd
}

// actJournal is that process.
func actJournal(args []string) error {
	times, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx, cancel := processContext()
	defer cancel()
	j := openJournal(args[0], 64<<20, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	for i := range times {
		if err := j.Append(ctx, event(args[1], fmt.Sprint(i))); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, i)
	}
	return nil
}

func TestJournalAppend_manyProcessesAndGoroutines_loseNothing(t *testing.T) {
	const processes, goroutines, times = 4, 8, 100
	dir := t.TempDir()
	d := newDiary(t, dir, 64<<20)
	var wg sync.WaitGroup
	for p := range processes {
		cmd := journalProcess(t, dir, fmt.Sprintf("process-%d", p), times)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("process %d: %v", p, err)
			}
		})
	}
	for g := range goroutines {
		wg.Go(func() {
			for i := range times {
				if err := d.Append(t.Context(), event(fmt.Sprintf("goroutine-%d", g), fmt.Sprint(i))); err != nil {
					t.Errorf("goroutine %d: %v", g, err)
				}
			}
		})
	}
	wg.Wait()
	for _, name := range append(numbered("process", processes), numbered("goroutine", goroutines)...) {
		got := d.messages(t, state.Filter{Machines: []string{name}})
		if len(got) != times {
			t.Errorf("%s: %d events, want %d", name, len(got), times)
		}
		for i, text := range got {
			if text != fmt.Sprint(i) {
				t.Fatalf("%s: event %d is %s", name, i, text)
			}
		}
	}
	if d.log.Len() > 0 {
		t.Errorf("log: %s", d.log)
	}
}

func numbered(word string, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d", word, i))
	}
	return names
}

func TestJournalAppend_processKilled_keepsWhatItWrote(t *testing.T) {
	dir := t.TempDir()
	d := newDiary(t, dir, 64<<20)
	for round := range 10 {
		name := fmt.Sprintf("round-%d", round)
		cmd := journalProcess(t, dir, name, 1<<30)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last, lines := -1, bufio.NewScanner(out)
		for lines.Scan() {
			if last, err = strconv.Atoi(strings.TrimSpace(lines.Text())); err != nil {
				t.Fatal(err)
			}
			if last == 20+round {
				break
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("the process was not killed")
		}
		d.append(t, event("after", name))
		got := d.messages(t, state.Filter{Machines: []string{name}})
		if len(got) <= last {
			t.Errorf("%s: %d events, though %d were written", name, len(got), last+1)
		}
		for i, text := range got {
			if text != fmt.Sprint(i) {
				t.Fatalf("%s: event %d is %s", name, i, text)
			}
		}
	}
	if got := len(d.messages(t, state.Filter{Machines: []string{"after"}})); got != 10 || d.log.Len() > 0 {
		t.Errorf("%d events after the kills, log %s", got, d.log)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("in the folder: %v (%v)", left, err)
	}
}

func BenchmarkJournalAppend_oneEvent(b *testing.B) {
	d := newDiary(b, b.TempDir(), 0)
	for b.Loop() {
		d.append(b, event("web", "started, pid 4711, QEMU says running"))
	}
}
