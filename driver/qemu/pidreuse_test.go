package qemu

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
)

// lastPID is where the kernel is told which pid it gave last, so that it gives the
// next one to the next process.
const lastPID = "/proc/sys/kernel/ns_last_pid"

// errPIDTaken is wrapped when a pid could not be had.
var errPIDTaken = errors.New("others were faster each time")

// processWithPID starts a process that has a given pid, which nobody has now. It
// lives until the test ends. Where that cannot be had the test is skipped.
func processWithPID(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		cmd, err := tryPID(t, pid)
		switch {
		case err == nil:
			return cmd
		case !errors.Is(err, errPIDTaken) || time.Now().After(deadline):
			t.Skipf("a process with the pid %d cannot be made here: %v", pid, err)
		}
	}
}

func tryPID(t *testing.T, pid int) (*exec.Cmd, error) {
	t.Helper()
	if err := unix.Kill(pid, 0); err == nil {
		return nil, fmt.Errorf("%d is somebody's already", pid)
	}
	if err := os.WriteFile(lastPID, []byte(strconv.Itoa(pid-1)), 0); err != nil {
		return nil, err
	}
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end := func() { endReader(cmd, in) }
	if cmd.Process.Pid != pid {
		end()
		return nil, errPIDTaken
	}
	t.Cleanup(end)
	return cmd, nil
}

// endReader ends a process that reads until its input ends.
func endReader(cmd *exec.Cmd, in io.Closer) {
	_ = in.Close() // it is closed once the process has ended, too
	_ = cmd.Wait() // how it ended is the test's to judge
}

// untouched tells whether a process still reads.
func untouched(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	stat, err := procfs{"/proc"}.stat(cmd.Process.Pid)
	if err != nil || stat.dead() {
		t.Errorf("process %d, which only has QEMU's old pid: %c, %v", cmd.Process.Pid, stat.state, err)
	}
}

// TestPIDUsedAgain_byAnotherProgram_isNotTakenForOurs gives the pid of a QEMU that was
// killed to a process that has nothing to do with it.
func TestPIDUsedAgain_byAnotherProgram_isNotTakenForOurs(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	k := r.childOf("web")
	// Somebody else's maqet holds on to the process that is about to end.
	old, err := openHandle(k.pid)
	r.must(err)
	defer old.close()
	r.signal("web", unix.SIGKILL)
	r.waitEnd("web")
	cmd := processWithPID(t, k.pid)

	// A maqet that has just begun, as after its own crash, and the one that was there.
	for who, r := range map[string]*rig{"another": rigAt(t, r.layout), "the same": r} {
		o := r.observe(vm, driver.DepthFull, driver.Absent)
		if o.Ended == nil || o.Ended.Cause != driver.EndCrash || o.PID != 0 {
			t.Errorf("%s maqet sees pid %d, ended %+v", who, o.PID, o.Ended)
		}
		r.must(r.Powerdown(t.Context(), "web"))
		r.must(r.Quit(t.Context(), "web"))
		r.must(r.Kill(t.Context(), "web"))
		r.must(r.Await(t.Context(), "web", vm, driver.Awaited{Exit: true}))
		untouched(t, cmd)
	}
	r.must(old.signal(unix.SIGKILL))
	if !old.exited() {
		t.Error("what is held is the new process of that pid")
	}
	untouched(t, cmd)
	r.must(r.ClearRun(t.Context(), "web"))
	r.start(vm, false)
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.PID == k.pid {
		t.Errorf("two processes have the pid %d", k.pid)
	}
	untouched(t, cmd)
}

// TestPIDUsedAgain_byAnotherMachine_isNotTakenForOurs has a machine's pid file name the
// QEMU of another machine, as it does when that one got the pid.
func TestPIDUsedAgain_byAnotherMachine_isNotTakenForOurs(t *testing.T) {
	r := newRig(t)
	vm, other := r.vm("web", bareBoard), r.vm("db", bareBoard)
	r.start(vm, false)
	r.start(other, false)
	r.signal("web", unix.SIGKILL)
	r.waitEnd("web")
	pid := r.childOf("db").pid
	r.must(os.WriteFile(r.layout.PIDFile("web"), []byte(strconv.Itoa(pid)+"\n"), 0o600))
	for who, r := range map[string]*rig{"another": rigAt(t, r.layout), "the same": r} {
		if o := r.observe(vm, driver.DepthFull, driver.Absent); o.Ended == nil || o.Ended.Cause != driver.EndCrash {
			t.Errorf("%s maqet sees %+v", who, o.Ended)
		}
		r.must(r.Quit(t.Context(), "web"))
		r.must(r.Kill(t.Context(), "web"))
		if o := r.observe(other, driver.DepthBrief, driver.Alive); o.PID != pid {
			t.Errorf("%s maqet has the other machine at pid %d, want %d", who, o.PID, pid)
		}
	}
	r.must(r.ClearRun(t.Context(), "web"))
	r.start(vm, false)
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.PID == pid {
		t.Errorf("both machines have the pid %d", pid)
	}
	r.observe(other, driver.DepthBrief, driver.Alive)
}
