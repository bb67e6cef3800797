package qemu

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
)

// lastPID is where the kernel is told which pid it gave last in this namespace, so
// that it gives the next one to the next process.
const lastPID = "/proc/sys/kernel/ns_last_pid"

// errPIDTaken is wrapped when another process or thread was given a pid.
var errPIDTaken = errors.New("another was faster")

// inPIDNamespace runs the rest of the calling test where pids are its own to give,
// and nobody else's are touched: in a second process of the test, in a namespace. It
// returns true there. Where there may be no such namespace the test is skipped.
func inPIDNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "MAQET_TEST_IN_PID_NAMESPACE"
	if os.Getenv(inside) != "" {
		// What is mounted here is seen by this process alone.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Skipf("this namespace cannot have a /proc of its own: %v", err)
		}
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			t.Skipf("this namespace cannot have a /proc of its own: %v", err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(self, "-test.v", "-test.run", "^"+t.Name()+"$") //nolint:gosec // G204: this very test
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		t.Skipf("there is no namespace of pids to be had, for which one must be root: %v", err)
	}
	err = cmd.Wait()
	switch text := out.String(); {
	case err != nil:
		t.Fatalf("in a namespace: %v\n%s", err, text)
	case strings.Contains(text, "--- SKIP"):
		t.Skipf("in a namespace:\n%s", text)
	case !strings.Contains(text, "--- PASS: "+t.Name()):
		t.Fatalf("in a namespace the test was not run:\n%s", text)
	}
	return false
}

// processWithPID starts a process that has a given pid, which nobody has now. It
// lives until the test ends.
func processWithPID(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	// This process makes threads, which take pids, too.
	const tries = 1000
	var err error
	for range tries {
		var cmd *exec.Cmd
		if cmd, err = tryPID(t, pid); err == nil {
			return cmd
		}
		if !errors.Is(err, errPIDTaken) {
			break
		}
	}
	t.Skipf("a process with the pid %d cannot be made here: %v", pid, err)
	return nil
}

func tryPID(t *testing.T, pid int) (*exec.Cmd, error) {
	t.Helper()
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
	if !inPIDNamespace(t) {
		return
	}
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
