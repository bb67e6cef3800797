package state_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maqet/maqet/state"
)

// followed collects what a follower is told.
type followed struct {
	events chan state.Event
	ended  chan error
	stop   context.CancelFunc
}

func (d *diary) follow(tb testing.TB, filter state.Filter) *followed {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	f := &followed{events: make(chan state.Event, 10_000), ended: make(chan error, 1), stop: cancel}
	go func() {
		f.ended <- d.Follow(ctx, filter, func(ev state.Event) error {
			f.events <- ev
			return nil
		})
	}()
	tb.Cleanup(cancel)
	return f
}

// next waits for an event and insists on its message.
func (f *followed) next(tb testing.TB, want string) {
	tb.Helper()
	select {
	case ev := <-f.events:
		if ev.Message != want {
			tb.Fatalf("event %q, want %q", ev.Message, want)
		}
	case err := <-f.ended:
		tb.Fatalf("following ended: %v", err)
	case <-time.After(patience):
		tb.Fatalf("never told of %q", want)
	}
}

func (f *followed) end(tb testing.TB) error {
	tb.Helper()
	select {
	case err := <-f.ended:
		return err
	case <-time.After(patience):
		tb.Fatal("following does not end")
		return nil
	}
}

func TestJournalFollow_pastAndFuture_inOrder(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	d.append(t, event("web", "1"), event("db", "2"), event("web", "3"), event("web", "4"))
	f := d.follow(t, state.Filter{Machines: []string{"web"}, Last: 2})
	f.next(t, "3")
	f.next(t, "4")
	d.append(t, event("db", "5"), event("web", "6"))
	f.next(t, "6")
	f.stop()
	if err := f.end(t); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestJournalFollow_beforeTheFirstEvent_seesIt(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	f := d.follow(t, state.Filter{})
	d.append(t, event("web", "first"))
	f.next(t, "first")
}

func TestJournalFollow_manyRotations_missNothingThatIsKept(t *testing.T) {
	dir := t.TempDir()
	d := newDiary(t, dir, 2048)
	f := d.follow(t, state.Filter{})
	for i := range 300 {
		d.append(t, event("web", fmt.Sprint(i)))
		if i%5 == 0 { // Never so far behind that a file is gone before it was read.
			for j := max(0, i-4); j <= i; j++ {
				f.next(t, fmt.Sprint(j))
			}
		}
	}
	if d.log.Len() > 0 {
		t.Errorf("log: %s", d.log)
	}
}

func TestJournalFollow_tornLine_isNotTold(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	d.append(t, event("web", "1"))
	whole := readFile(t, d.path)
	f := d.follow(t, state.Filter{})
	f.next(t, "1")
	writer, err := os.OpenFile(d.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(whole[:len(whole)-5]); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	d.append(t, event("web", "2"))
	f.next(t, "2")
}

func TestJournalFollow_functionFails_endsWithItsError(t *testing.T) {
	d := newDiary(t, t.TempDir(), 0)
	d.append(t, event("web", "1"))
	enough := errors.New("enough")
	for _, last := range []int{0, -1} { // Told of the past, and of what comes.
		told := make(chan error, 1)
		go func() {
			told <- d.Follow(t.Context(), state.Filter{Last: last}, func(state.Event) error { return enough })
		}()
		deadline := time.After(patience)
		for over := false; !over; {
			d.append(t, event("web", "more"))
			select {
			case err := <-told:
				over = true
				if !errors.Is(err, enough) {
					t.Errorf("ended with %v", err)
				}
			case <-deadline:
				t.Fatal("following does not end")
			default:
			}
		}
	}
}

func TestJournalFollow_folderGone_saysSo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	d := newDiary(t, dir, 0)
	wantError(t, d.Follow(t.Context(), state.Filter{}, nil), os.ErrNotExist, dir, "--state-dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.append(t, event("web", "1"))
	f := d.follow(t, state.Filter{})
	f.next(t, "1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.end(t); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
