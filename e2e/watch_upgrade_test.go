package e2e

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

// another is a second build of maqet, of another version.
func another(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "maqet")
	cmd := exec.Command("go", "build", "-o", path, "-ldflags", "-X main.version="+version, "./cmd/maqet")
	cmd.Dir = repository(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// TestWatch_upgradedUnderLoad_isAnEmptyPlan swaps the binary of a watch forth and
// back while files are edited and others read.
func TestWatch_upgradedUnderLoad_isAnEmptyPlan(t *testing.T) {
	t.Parallel()
	const machines = 3
	w := newWatching(t, machines)
	old, next := w.Binary, another(t, "v9.9.9")
	w.Binary = next
	if out := w.Must(t, 0, "version"); !strings.Contains(out, "v9.9.9") {
		t.Fatalf("the second build is %q", out)
	}
	w.Binary = old
	w.begin()
	before := w.running(machines)
	w.Must(t, 0, "hold", "vm2", "--why", "kept over upgrades")

	stop := make(chan struct{})
	var readers sync.WaitGroup
	reader := *w.Host
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, stderr, code := reader.Maqet(t, "get"); code != 0 {
					t.Errorf("get beside an upgrade: exit code %d, %s", code, stderr)
				}
			}
		}
	})
	for round, binary := range []string{next, old, next} {
		for i := range machines - 1 {
			w.label(vmName(i), round)
		}
		// As a package's upgrade does: the old one is told to end, or killed.
		if round%2 == 0 {
			if code := w.watch.End(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		} else {
			w.watch.Kill()
		}
		w.Binary = binary
		w.begin()
		w.converges("new" + itoa(round))
	}
	close(stop)
	readers.Wait()
	after := w.pids()
	for name, pid := range before {
		if s := w.Status(t, name); after[name] != pid || s.Restarts != 0 {
			t.Errorf("%s is pid %d (was %d), %+v", name, after[name], pid, s)
		}
	}
	if s := w.Status(t, "vm2"); s.Condition("Held") == nil {
		t.Errorf("the hold is gone: %+v", s)
	}
	w.Must(t, 0, "release", "vm2")
	w.empty()
}
