package reconcile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
)

func newWatchLock(t *testing.T) WatchLock {
	t.Helper()
	dir := t.TempDir()
	where := layout.Layout{State: dir, Run: filepath.Join(dir, "run")}
	if err := os.MkdirAll(where.LockDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	return WatchLock{Locks: filelock.New(), Layout: where}
}

func TestWatchLock_claimed_isTheOnlyOneAndSeenUntilReleased(t *testing.T) {
	l := newWatchLock(t)
	if live, err := l.Live(t.Context()); live != nil || err != nil {
		t.Fatalf("before: %+v, %v", live, err)
	}
	mine := LiveWatch{PID: os.Getpid(), Owner: "/vms", Roots: []string{"/vms"}, Since: t0}
	release, err := l.Claim(t.Context(), mine)
	if err != nil {
		t.Fatal(err)
	}
	// Others have a manager of their own.
	other := WatchLock{Locks: filelock.New(), Layout: l.Layout}
	live, err := other.Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&mine, live); diff != "" {
		t.Errorf("live (-want +got):\n%s", diff)
	}
	var held *filelock.HeldError
	if _, err := other.Claim(t.Context(), mine); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("a second claim: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if live, err := other.Live(t.Context()); live != nil || err != nil {
		t.Errorf("after: %+v, %v", live, err)
	}
}

func TestWatchLock_holderWasKilled_isNoWatch(t *testing.T) {
	l := newWatchLock(t)
	release, err := l.Claim(t.Context(), LiveWatch{PID: 1, Owner: "/vms"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.Layout.Controller())
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	// The kernel frees a lock, nobody removes the file.
	if err := os.WriteFile(l.Layout.Controller(), text, 0o600); err != nil { //nolint:gosec // a file in a folder of the test's own.
		t.Fatal(err)
	}
	if live, err := l.Live(t.Context()); live != nil || err != nil {
		t.Errorf("live: %+v, %v", live, err)
	}
}

func TestLiveWatchHas_roots_onlyThoseBelowItsOwn(t *testing.T) {
	w := &LiveWatch{Roots: []string{"/vms", "/etc/more.yaml"}}
	tests := []struct {
		roots []string
		want  bool
	}{
		{[]string{"/vms"}, true},
		{[]string{"/vms/web.yaml", "/etc/more.yaml"}, true},
		{[]string{"/vms2"}, false},
		{[]string{"/vms", "/home"}, false},
		{[]string{"-"}, false},
		{nil, false},
	}
	for _, tt := range tests {
		if got := w.has(tt.roots); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.roots, got, tt.want)
		}
	}
}
