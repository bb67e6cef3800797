package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// bubble runs a Watcher of a folder with one manifest by the clock of a bubble
// and the given kernel, after its first hint. Files there have times of long ago,
// as a bubble's clock has no relation to theirs.
func bubble(t *testing.T, k *kernel, test func(t *testing.T, w *Watcher, dir string, log *journal)) {
	t.Helper()
	dir := t.TempDir()
	do(t, write(dir+"/a.yaml", "1"))
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		w := newWatcher(t, Options{Paths: []string{dir}, Log: slog.New(slog.NewTextHandler(log, nil))})
		k.install(w)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		wantHint(t, w, "the start")
		test(t, w, dir, log)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// wantHint takes the hint that must be there by now.
func wantHint(t *testing.T, w *Watcher, after string) {
	t.Helper()
	synctest.Wait()
	select {
	case <-w.Changes():
	default:
		t.Fatalf("no hint after %s; status %+v", after, w.Status())
	}
}

// wantNone fails when there is a hint within d.
func wantNone(t *testing.T, w *Watcher, d time.Duration, when string) {
	t.Helper()
	start := time.Now()
	select {
	case <-w.Changes():
		t.Fatalf("a hint %v after %s; status %+v", time.Since(start), when, w.Status())
	case <-time.After(d):
	}
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func wantMode(t *testing.T, w *Watcher, want Mode, reason string) {
	t.Helper()
	synctest.Wait()
	got := w.Status()
	if got.Mode != want || !strings.Contains(got.Reason, reason) || (reason == "") != (got.Reason == "") {
		t.Fatalf("status %+v, want mode %v and reason %q", got, want, reason)
	}
	if (got.Watched == 0) != (want == ModeListing) {
		t.Errorf("%d folders watched by %v", got.Watched, got.Mode)
	}
}

func TestWatcher_inotifyLimits_fallBackToListingAndComeBack(t *testing.T) {
	noWatch := func(after int) func(*fakeNotifier, string) error {
		return func(n *fakeNotifier, _ string) error {
			if n.added >= after {
				return unix.ENOSPC
			}
			return nil
		}
	}
	tests := []struct {
		name   string
		kernel *kernel
		reason string
	}{
		{"no watch left", &kernel{refuseAdd: noWatch(0)}, "fs.inotify.max_user_watches"},
		{"the second watch is one too many", &kernel{refuseAdd: noWatch(1)}, "fs.inotify.max_user_watches"},
		{"no instance left", &kernel{refuseOpen: fmt.Errorf("couldn't initialize inotify: %w", unix.EMFILE)}, "fs.inotify.max_user_instances"},
		{"no memory for a watch", &kernel{refuseAdd: func(*fakeNotifier, string) error { return unix.ENOMEM }}, "cannot allocate memory"},
		{"no inotify at all", &kernel{refuseOpen: unix.ENOSYS}, "function not implemented"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, tt.kernel, func(t *testing.T, w *Watcher, dir string, log *journal) {
				wantMode(t, w, ModeListing, tt.reason)
				wantNone(t, w, time.Hour, "nothing, with inotify tried in vain")
				do(t, write(dir+"/a.yaml", "longer than before"))
				pass(2 * time.Second)
				wantHint(t, w, "an edit, by listing")
				do(t, os.Mkdir(dir+"/sub", 0o700), write(dir+"/sub/b.yaml", "1"))
				pass(2 * time.Second)
				wantHint(t, w, "a new folder, by listing")
				do(t, os.RemoveAll(dir))
				pass(2 * time.Second)
				wantHint(t, w, "the folder vanished, by listing")
				do(t, os.Mkdir(dir, 0o700))
				if got := strings.Count(log.String(), "level=WARN"); got != 1 {
					t.Errorf("%d warnings, want one:\n%s", got, log)
				}

				tt.kernel.limit(nil)
				pass(40 * time.Second)
				wantMode(t, w, ModeInotify, "")
				wantHint(t, w, "inotify is back")
				if !strings.Contains(log.String(), "inotify is used again") {
					t.Errorf("the log does not tell:\n%s", log)
				}
				do(t, write(dir+"/a.yaml", "again"))
				tt.kernel.last(t).events <- fsnotify.Event{Name: dir + "/a.yaml", Op: fsnotify.Create}
				pass(100 * time.Millisecond)
				wantHint(t, w, "an event")
			})
		})
	}
}

func TestWatcher_limitMetLater_fallsBackWithAHint(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, dir string, log *journal) {
		wantMode(t, w, ModeInotify, "")
		n := k.last(t)
		k.limit(func(*fakeNotifier, string) error { return unix.ENOSPC })
		do(t, os.Mkdir(dir+"/sub", 0o700))
		n.events <- fsnotify.Event{Name: dir + "/sub", Op: fsnotify.Create}
		pass(100 * time.Millisecond)
		wantHint(t, w, "the limit was met")
		wantMode(t, w, ModeListing, "fs.inotify.max_user_watches")
		do(t, write(dir+"/sub/b.yaml", "1"))
		pass(2 * time.Second)
		wantHint(t, w, "a file, by listing")
		if got := strings.Count(log.String(), "level=WARN"); got != 1 {
			t.Errorf("%d warnings, want one:\n%s", got, log)
		}
	})
}

func TestWatcher_eventsCannotBeRead_fallsBackWithAHint(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, _ string, _ *journal) {
		k.last(t).errs <- errors.New("short read")
		pass(100 * time.Millisecond)
		wantHint(t, w, "the reading failed")
		wantMode(t, w, ModeListing, "short read")
	})
}

func TestWatcher_movedFolderGoneMeanwhile_isNoReasonToFallBack(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, _ string, log *journal) {
		k.last(t).errs <- unix.EINVAL // of removing a watch that the kernel has removed
		pass(100 * time.Millisecond)
		wantHint(t, w, "a watch was removed twice")
		wantMode(t, w, ModeInotify, "")
		if log.String() != "" {
			t.Errorf("log:\n%s", log)
		}
		k.last(t).errs <- &fs.PathError{Op: "read", Path: "inotify", Err: unix.EINVAL}
		pass(100 * time.Millisecond)
		wantHint(t, w, "the reading failed")
		wantMode(t, w, ModeListing, "read inotify: invalid argument")
	})
}

// TestWatcher_folderMadeBeforeTheWatch_isFound makes a folder at the last moment
// at which no watch can tell of it: after the look, and before the watch.
func TestWatcher_folderMadeBeforeTheWatch_isFound(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, dir string, _ *journal) {
		var made error
		k.limit(func(_ *fakeNotifier, path string) error {
			if path == dir+"/sub" {
				made = os.MkdirAll(dir+"/sub/deep/deeper", 0o700)
			}
			return nil
		})
		do(t, os.Mkdir(dir+"/sub", 0o700))
		n := k.last(t)
		n.events <- fsnotify.Event{Name: dir + "/sub", Op: fsnotify.Create}
		pass(100 * time.Millisecond)
		wantHint(t, w, "a new folder")
		do(t, made)
		if watched := n.WatchList(); !slices.Contains(watched, dir+"/sub/deep/deeper") {
			t.Errorf("watched: %v", watched)
		}
	})
}

// TestWatcher_nameStandsForAnother_isWatchedAnew tells of a folder replaced by one
// that cannot be told apart, as when the number of its inode is used again.
func TestWatcher_nameStandsForAnother_isWatchedAnew(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, dir string, _ *journal) {
		n := k.last(t)
		before := n.addedSoFar()
		n.events <- fsnotify.Event{Name: dir, Op: fsnotify.Create}
		pass(100 * time.Millisecond)
		wantHint(t, w, "a replaced folder")
		if got := n.addedSoFar() - before; got != 1 {
			t.Errorf("%d watches made, want that of the folder", got)
		}
	})
}

// TestWatcher_foldersNeverAtRest_arePausedAt has a folder replaced at every look,
// which must not keep the Watcher looking without a pause.
func TestWatcher_foldersNeverAtRest_arePausedAt(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, dir string, _ *journal) {
		n := k.last(t)
		k.limit(func(_ *fakeNotifier, path string) error {
			if path == dir {
				return unix.ENOENT // gone in this moment, and back at the next
			}
			return nil
		})
		before := n.addedSoFar()
		do(t, n.Remove(dir))
		k.mounts <- struct{}{}
		for range 10 {
			pass(100 * time.Millisecond)
			wantHint(t, w, "changes without end")
		}
		if got := n.addedSoFar() - before; got > 10*maxRounds*w.Status().Watched {
			t.Errorf("%d watches made in a second", got)
		}
		k.limit(nil)
		pass(100 * time.Millisecond)
		wantHint(t, w, "the last change")
		wantNone(t, w, time.Hour, "it is quiet")
	})
}

// TestWatcher_sameSizeEditsWithinATick_areHintedWhenListing edits faster than the
// times of a file tell apart, so that a listing alone would miss the last edit.
func TestWatcher_sameSizeEditsWithinATick_areHintedWhenListing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	do(t, write(path, "000"))
	opt := swift(path)
	opt.FallbackRelist = 2 * time.Millisecond
	w := newWatcher(t, opt)
	w.open = func() (notifier, error) { return nil, unix.EMFILE }
	run(t, w)
	r := &receiver{t: t, w: w, paths: opt.Paths}
	r.next("the first look")
	for i := range 200 {
		do(t, write(path, fmt.Sprintf("%03d", i)))
		if i%20 == 0 {
			r.catchUp("an edit")
			do(t, write(path, fmt.Sprintf("%03d", i+500)))
		}
	}
	r.catchUp("the last edit")
}

func TestWatcher_overflow_hintsAndWatchesAnew(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, _ string, log *journal) {
		n := k.last(t)
		before, watched := n.addedSoFar(), w.Status().Watched
		n.errs <- fsnotify.ErrEventOverflow
		pass(100 * time.Millisecond)
		wantHint(t, w, "an overflow")
		if got := n.addedSoFar() - before; got != watched {
			t.Errorf("%d watches made anew, want all %d", got, watched)
		}
		if got := w.Status(); got.Overflows != 1 || got.Mode != ModeInotify {
			t.Errorf("status %+v", got)
		}
		if !strings.Contains(log.String(), "overflowed") {
			t.Errorf("the log does not tell:\n%s", log)
		}
	})
}

func TestWatcher_steadyEvents_areHintedOnceASecond(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, dir string, _ *journal) {
		n, start, hints := k.last(t), time.Now(), 0
		for tick := time.NewTicker(33 * time.Millisecond); time.Since(start) < time.Minute; {
			select {
			case <-tick.C:
				n.events <- fsnotify.Event{Name: dir + "/a.yaml", Op: fsnotify.Write}
			case <-w.Changes():
				hints++
			}
		}
		if hints < 55 || hints > 60 {
			t.Errorf("%d hints in a minute of 30 edits a second, want about one a second", hints)
		}
	})
}

func TestWatcher_noEvents_listsSlowlyAndWatchesMounts(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, dir string, _ *journal) {
		do(t, write(dir+"/a.yaml", "an edit that no event tells of"))
		wantNone(t, w, 5*time.Minute-time.Second, "a silent edit")
		pass(time.Second)
		wantHint(t, w, "the slow listing")
		wantNone(t, w, time.Hour, "nothing more")

		k.mounts <- struct{}{}
		wantNone(t, w, time.Second, "a mount that changes nothing here")
		do(t, write(dir+"/b.yaml", "mounted, as it were"))
		k.mounts <- struct{}{}
		pass(100 * time.Millisecond)
		wantHint(t, w, "a mount")
	})
}

func TestWatcher_watchDroppedByTheKernel_isMadeAgain(t *testing.T) {
	k := &kernel{}
	bubble(t, k, func(t *testing.T, w *Watcher, dir string, _ *journal) {
		n := k.last(t)
		do(t, n.Remove(dir)) // as after an unmount, of which fsnotify says nothing
		k.mounts <- struct{}{}
		pass(100 * time.Millisecond)
		wantHint(t, w, "a lost watch")
		if n.mu.Lock(); !n.watched[dir] {
			t.Error("the folder is not watched any more")
		}
		n.mu.Unlock()
	})
}

func TestWatcher_foldersInotifyCannotOversee_areListedToo(t *testing.T) {
	tests := []struct {
		name   string
		kernel *kernel
		remote string
		reason string
	}{
		{"unreadable", &kernel{refuseAdd: func(_ *fakeNotifier, path string) error {
			if path == "/" {
				return unix.EACCES
			}
			return nil
		}}, "", "1 folders are also listed, for inotify does not tell all: /: permission denied"},
		{"on a network", &kernel{}, "NFS", "changes made elsewhere on NFS give no event"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "vms")
			plant(t, dir+"/a.yaml", "1")
			synctest.Test(t, func(t *testing.T) {
				w := newWatcher(t, Options{Paths: []string{dir}})
				w.remote = func(string) string { return tt.remote }
				tt.kernel.install(w)
				stop := run(t, w)
				wantHint(t, w, "the start")
				wantMode(t, w, ModeInotify, tt.reason)
				wantNone(t, w, time.Hour, "nothing")
				do(t, write(dir+"/a.yaml", "edited elsewhere"))
				pass(2 * time.Second)
				wantHint(t, w, "an edit that no event tells of")
				stop()
			})
		})
	}
}

// journal is a log that one goroutine reads while another writes it.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
