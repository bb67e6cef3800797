package folder

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/maqet/maqet/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for a hint that must come.
const patience = 20 * time.Second

// swift are options whose safety net cannot hide a hint that does not come.
func swift(paths ...string) Options {
	return Options{Paths: paths, Debounce: 2 * time.Millisecond, MaxDelay: 20 * time.Millisecond, Relist: time.Hour, FallbackRelist: time.Hour}
}

func newWatcher(t testing.TB, opt Options) *Watcher {
	t.Helper()
	w, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs w until the function that comes back is called, or the test ends.
func run(t testing.TB, w *Watcher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// receiver does what a Watcher is for: it reads all manifests at every hint, and
// at no other time.
type receiver struct {
	t     testing.TB
	w     *Watcher
	paths []string
	seen  string
	hints int
}

// receive runs a Watcher of opt and reads for the first time.
func receive(t testing.TB, opt Options) *receiver {
	t.Helper()
	w := newWatcher(t, opt)
	run(t, w)
	r := &receiver{t: t, w: w, paths: opt.Paths}
	r.next("the first look")
	return r
}

// next waits for a hint and reads.
func (r *receiver) next(what string) {
	r.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-r.w.Changes():
		r.hints++
		r.seen = content(r.t, r.paths)
	case <-timeout.C:
		r.t.Fatalf("no hint after %s; status %+v\nread last:\n%snow:\n%s", what, r.w.Status(), r.seen, content(r.t, r.paths))
	}
}

// catchUp waits until what was read at a hint is what there is.
func (r *receiver) catchUp(what string) {
	r.t.Helper()
	for r.seen != content(r.t, r.paths) {
		r.next(what)
	}
}

// content is all that Load could notice.
func content(t testing.TB, paths []string) string {
	t.Helper()
	survey, err := manifest.Look(context.WithoutCancel(t.Context()), paths)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, path := range survey.Files {
		text, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil {
			_, _ = fmt.Fprintf(&b, "%s: %v %v\n", path, err, statErr)
			continue
		}
		_, _ = fmt.Fprintf(&b, "%s %x %v %d\n", path, sha256.Sum256(text), info.Mode(), info.ModTime().UnixNano())
	}
	_, _ = fmt.Fprintf(&b, "%v\n", survey.Faults)
	return b.String()
}

// do fails the test when one of several steps fails.
func do(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// write writes a file in place.
func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

// plant makes a file with the folders above it.
func plant(t testing.TB, path, text string) {
	t.Helper()
	do(t, os.MkdirAll(filepath.Dir(path), 0o700), write(path, text))
}

// link makes link name lead to target by a rename, as those do who swap links.
func link(target, name string) error {
	if err := os.Symlink(target, name+".new"); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
