package qemu

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// The environment of a helper process: the folders it works on.
const (
	helperState = "MAQET_TEST_HELPER_STATE"
	helperRun   = "MAQET_TEST_HELPER_RUN"
	// helperShares is a folder that the machine shares; empty for none.
	helperShares = "MAQET_TEST_HELPER_SHARES"
)

// TestHelperStarts is no test but another maqet, which is killed while it starts a
// machine.
func TestHelperStarts(t *testing.T) {
	if os.Getenv(helperState) == "" {
		t.Skip("it is run by TestStart_maqetKilledMidway_startsOnceAfterwards")
	}
	r := rigAt(t, layout.Layout{State: os.Getenv(helperState), Run: os.Getenv(helperRun)})
	vm := r.vm("web", bareBoard)
	if folder := os.Getenv(helperShares); folder != "" {
		vm = r.vm("web", sharing(folder))
	}
	unlock, err := r.Lock(t.Context(), "web")
	r.must(err)
	defer unlock()
	_, err = os.Stdout.WriteString("go\n")
	r.must(err)
	r.must(r.tryStart(vm, false))
	// It stays until it is killed, so that it never ends its QEMU.
	r.must(pause(t.Context(), time.Minute))
}

func TestStart_maqetKilledMidway_startsOnceAfterwards(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	id, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	adopted := 0
	for range rounds {
		startAndKillHelper(t, r)
		unlock, err := r.Lock(t.Context(), "web")
		r.must(err)
		o := r.Observe(t.Context(), "web", vm, driver.DepthFull)
		switch o.Presence {
		case driver.Alive:
			adopted++
		case driver.Absent:
			if o.Ended != nil && o.Ended.Cause != driver.EndStartFailed {
				t.Errorf("Ended = %+v, want a start that failed", o.Ended)
			}
			r.must(r.tryStart(vm, false))
		case driver.Unresponsive, driver.Unknown:
			t.Fatalf("observed %s %s: %s", o.Presence, o.Reason, o.Message)
		}
		o = r.observe(vm, driver.DepthBrief, driver.Alive)
		found, err := r.proc.guests()
		if err != nil || len(found[id.UID]) != 1 {
			t.Fatalf("%d processes have the uuid (%v), want 1", len(found[id.UID]), err)
		}
		h, err := openHandle(o.PID)
		r.must(err)
		r.must(r.Kill(t.Context(), "web"))
		r.must(h.wait(t.Context()))
		h.close()
		r.must(r.ClearRun(t.Context(), "web"))
		unlock()
	}
	t.Logf("%d of %d starts were adopted", adopted, rounds)
}

// sharing shares one folder five times, so that there is time between the first of its
// helpers and QEMU.
func sharing(folder string) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			s.Filesystems = append(s.Filesystems, manifest.Filesystem{Name: name, Path: folder})
		}
	}
}

// TestFilesystem_maqetKilledMidway_leavesNoVirtiofsd kills maqet at some moment of a start,
// and looks that there is a QEMU with all it needs, or nothing at all.
func TestFilesystem_maqetKilledMidway_leavesNoVirtiofsd(t *testing.T) {
	needVirtiofsd(t)
	r := newRig(t)
	folder := t.TempDir()
	vm := r.vm("web", sharing(folder))
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	alive := 0
	for range 6 {
		startAndKillHelper(t, r, helperShares+"="+folder)
		o := r.Observe(t.Context(), "web", vm, driver.DepthFull)
		switch o.Presence {
		case driver.Alive:
			alive++
			if len(o.FilesystemsLost) > 0 {
				t.Errorf("lost are %v", o.FilesystemsLost)
			}
			h, err := openHandle(o.PID)
			r.must(err)
			r.must(r.Kill(t.Context(), "web"))
			r.must(h.wait(t.Context()))
			h.close()
		case driver.Absent:
		case driver.Unresponsive, driver.Unknown:
			t.Fatalf("observed %s %s: %s", o.Presence, o.Reason, o.Message)
		}
		for _, f := range vm.Spec.Filesystems {
			r.awaitNoVirtiofsd(f.Name)
		}
		r.must(r.ClearRun(t.Context(), "web"))
	}
	t.Logf("%d of 6 starts were adopted", alive)
	r.start(vm, true)
	if o := r.observe(vm, driver.DepthFull, driver.Alive); len(o.FilesystemsLost) != 0 {
		t.Errorf("after all that, lost are %v", o.FilesystemsLost)
	}
	r.end()
}

// startAndKillHelper lets another maqet begin to start the machine and kills it at
// some moment of that.
func startAndKillHelper(t *testing.T, r *rig, env ...string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperStarts$") //nolint:gosec // this very test
	cmd.Env = append(append(os.Environ(), helperState+"="+r.layout.State, helperRun+"="+r.layout.Run), env...)
	out, err := cmd.StdoutPipe()
	r.must(err)
	r.must(cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "go\n" {
		t.Errorf("the helper said %q (%v)", line, err)
	}
	r.must(pause(t.Context(), rand.N(60*time.Millisecond))) //nolint:gosec // any moment will do
	r.must(cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait() // it was killed
}
