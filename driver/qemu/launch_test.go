package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

func TestStart_pausedMachine_isConfirmedAndSeenInFull(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.CPU = &manifest.CPU{Model: "max", Count: 2, Topology: &manifest.Topology{Sockets: 1, Cores: 2}}
		s.Disks = []manifest.Disk{{Name: "root", Size: 64 << 20}}
		s.NICs = []manifest.NIC{{Name: "lan", MAC: "52:54:00:aa:bb:cc", User: &manifest.UserNet{}}}
		s.Devices = []manifest.Device{{Name: "rng0", Driver: "virtio-rng-pci"}}
		s.Serial = &manifest.Serial{Log: true}
	})
	r.start(vm, true)
	o := r.observe(vm, driver.DepthFull, driver.Alive)

	want := &driver.Guest{
		RunState: "prelaunch", UID: o.Identity.UID, Version: realHost(t).Version, Accelerator: "tcg",
		MachineType: o.Identity.Machine.Type, CPUs: 2, Topology: driver.Topology{Sockets: 1, Cores: 2, Threads: 1},
		CPUModel: "max-x86_64-cpu", Memory: 32 << 20,
		Disks: []driver.GDisk{{
			Name: "root", File: r.layout.Disk("web", "root"), Format: "qcow2", Driver: "virtio-blk-pci", Size: 64 << 20,
			Cache: "writeback", DetectZeroes: "off", IOStatus: "ok",
		}},
		NICs:    []driver.GNIC{{Name: "lan", Model: "virtio-net-pci", MAC: "52:54:00:aa:bb:cc"}},
		Devices: []driver.GDevice{{Name: "rng0", Driver: "virtio-rng-pci"}},
		Ports:   3,
	}
	if diff := cmp.Diff(want, o.Guest); diff != "" {
		t.Errorf("guest (-want +got):\n%s", diff)
	}
	wantFiles := map[string]driver.DiskFile{"root": {Path: r.layout.Disk("web", "root"), Exists: true, Kind: "qcow2", Size: 64 << 20, Format: "qcow2"}}
	root := o.Files["root"]
	if root.Allocated <= 0 || root.Free <= 0 || root.Total < root.Free || root.Filesystem == 0 {
		t.Errorf("its filesystem was not looked at: %+v", root)
	}
	root.Allocated, root.Free, root.Total, root.Filesystem = 0, 0, 0, 0
	if diff := cmp.Diff(wantFiles, map[string]driver.DiskFile{"root": root}); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if o.Ready || !o.SnapshotsKnown || o.Launched == nil || o.Launched.Generation != 7 {
		t.Errorf("Ready %v, SnapshotsKnown %v, Launched %+v", o.Ready, o.SnapshotsKnown, o.Launched)
	}
	if age := time.Since(o.StartedAt); age < 0 || age > time.Minute {
		t.Errorf("StartedAt = %s, which is %s ago", o.StartedAt, age)
	}
}

func TestStart_filesAndDescriptors_areNobodyElses(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard, func(s *manifest.VirtualMachineSpec) { s.Serial = nil })
	r.start(vm, false)
	for _, path := range []string{r.layout.QMPSocket("web"), r.layout.CLISocket("web"), r.layout.Launched("web"), r.layout.PIDFile("web"), r.layout.QEMULog("web"), r.layout.Identity("web")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %#o, want 0600", path, info.Mode().Perm())
		}
	}
	for _, path := range []string{r.layout.Run, r.layout.RunDir("web"), r.layout.LogDir("web"), r.layout.DiskDir("web")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %#o, want 0700", path, info.Mode().Perm())
		}
	}
	pid := r.childOf("web").pid
	fds, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "fd", fd.Name()))
		if err == nil && (strings.Contains(target, "/locks/") || strings.Contains(target, "pipe:")) {
			t.Errorf("QEMU has descriptor %s: %s", fd.Name(), target)
		}
	}
	if sid := procField(t, pid, 3); sid != strconv.Itoa(pid) {
		t.Errorf("session of pid %d = %s, want its own", pid, sid)
	}
}

// procField is a word of /proc/PID/stat, counted from behind the name.
func procField(t *testing.T, pid, n int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])[n]
}

func TestStart_badDevice_saysQEMUsLastWordsAndLeavesNothing(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard, func(s *manifest.VirtualMachineSpec) {
		s.Emulator.ExtraArgs = []string{"-device", "no-such-device"}
	})
	err := r.tryStart(vm, false)
	var life *driver.LifecycleError
	var start *driver.StartError
	if !errors.As(err, &life) || !errors.As(err, &start) {
		t.Fatalf("Start = %v, want a LifecycleError with a StartError", err)
	}
	if !life.Refused || life.VM != "web" || start.Exit != "exit status 1" || !strings.Contains(start.LastLine, "no-such-device") {
		t.Errorf("Start = %+v with %+v", life, start)
	}
	if files := r.runFiles(); len(files) > 0 {
		t.Errorf("the run dir still holds %v", files)
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended != nil {
		t.Errorf("Ended = %+v, want none: the start was told of already", o.Ended)
	}
}

func TestStart_missingDevice_hintNamesTheField(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "data", File: "/no/such/image.qcow2", Format: manifest.FormatQcow2}}
	})
	err := r.tryStart(vm, false)
	if life := lifecycle(err); life == nil || !strings.Contains(life.Hint, "spec.disks[0].file") {
		t.Fatalf("Start = %v, want a hint that names the field", err)
	}
}

func TestStart_runDirTooDeep_isRefusedBefore(t *testing.T) {
	realHost(t)
	dir := shortDir(t)
	r := rigAt(t, layout.Layout{State: filepath.Join(dir, "s"), Run: filepath.Join(dir, strings.Repeat("d", 110))})
	err := r.tryStart(r.vm("web", bareBoard), false)
	if life := lifecycle(err); life == nil || !strings.Contains(life.Hint, "--run-dir") {
		t.Fatalf("Start = %v, want a refusal with the remedy", err)
	}
	if _, err := os.Stat(r.layout.Identity("web")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("identity: %v, want none written", err)
	}
}

func TestStart_runDirOfAnotherStateDir_isRefused(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", bareBoard), false)
	other := rigAt(t, layout.Layout{State: filepath.Join(shortDir(t), "s2"), Run: r.layout.Run})
	if err := other.tryStart(other.vm("db", bareBoard), false); !errors.Is(err, layout.ErrForeignRunDir) {
		t.Errorf("Start = %v, want ErrForeignRunDir", err)
	}
	if err := layout.EnsureDirs(layout.Layout{State: other.layout.State, Run: filepath.Join(shortDir(t), "r2")}); err != nil {
		t.Fatal(err)
	}
	o := other.Observe(t.Context(), "web", nil, driver.DepthBrief)
	if o.Presence != driver.Unknown || o.Reason != driver.ReasonLookFailed {
		t.Errorf("Observe = %s %s (%s), want Unknown", o.Presence, o.Reason, o.Message)
	}
}

func TestStart_runDirRemovedUnderRunningMachine_isLostAndNotStartedTwice(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	k := r.childOf("web")
	if err := os.RemoveAll(r.layout.RunDir("web")); err != nil {
		t.Fatal(err)
	}
	o := r.observe(vm, driver.DepthFull, driver.Unresponsive)
	if o.Reason != driver.ReasonSocketsLost || o.PID != k.pid || !strings.Contains(o.Hint, strconv.Itoa(k.pid)) {
		t.Errorf("observed %s, pid %d, hint %q", o.Reason, o.PID, o.Hint)
	}
	if err := r.tryStart(vm, false); !errors.Is(err, ErrSocketsLost) {
		t.Errorf("Start = %v, want ErrSocketsLost", err)
	}
	if err := r.Kill(t.Context(), "web"); !errors.Is(err, ErrSocketsLost) {
		t.Errorf("Kill = %v, want a refusal", err)
	}
	if k.over() {
		t.Error("the process was ended")
	}
	if found, err := r.proc.guests(); err != nil || len(found[o.Identity.UID]) != 1 {
		t.Errorf("%d processes have the uuid (%v), want 1", len(found[o.Identity.UID]), err)
	}
}

func TestStart_lookAlikeHasTheUUID_isRefusedAndUntouched(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	id, err := r.EnsureIdentity(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	stranger := exec.Command("/bin/sh", "-c", "read -r line", "x", "-uuid", id.UID) //nolint:gosec // G204: a shell that waits for its input
	in, err := stranger.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = in.Close(), stranger.Wait() }()

	if err := r.tryStart(vm, false); !errors.Is(err, driver.ErrForeign) || !strings.Contains(err.Error(), strconv.Itoa(stranger.Process.Pid)) {
		t.Errorf("Start = %v, want ErrForeign with the pid", err)
	}
	o := r.observe(vm, driver.DepthBrief, driver.Unknown)
	if o.Reason != driver.ReasonForeign || o.PID != stranger.Process.Pid {
		t.Errorf("observed %s, pid %d", o.Reason, o.PID)
	}
	if err := r.Kill(t.Context(), "web"); !errors.Is(err, driver.ErrForeign) {
		t.Errorf("Kill = %v, want ErrForeign", err)
	}
	if _, err := r.Forget(t.Context(), "web", true); !errors.Is(err, driver.ErrForeign) {
		t.Errorf("Forget = %v, want ErrForeign", err)
	}
	if stat, err := r.proc.stat(stranger.Process.Pid); err != nil || stat.dead() {
		t.Errorf("the stranger is gone: %v", err)
	}
}

func TestStart_racedByTwoMaqets_oneProcess(t *testing.T) {
	r := newRig(t)
	others := []*rig{r, rigAt(t, r.layout), rigAt(t, r.layout), rigAt(t, r.layout)}
	vm := r.vm("web", bareBoard)
	var all sync.WaitGroup
	started := make([]bool, len(others))
	for i, other := range others {
		all.Go(func() {
			unlock, err := other.Lock(t.Context(), "web")
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			if o := other.Observe(t.Context(), "web", vm, driver.DepthBrief); o.Presence == driver.Absent {
				if err := other.tryStart(vm, false); err != nil {
					t.Error(err)
				}
				started[i] = true
			}
		})
	}
	all.Wait()
	if n := len(slices.DeleteFunc(started, func(s bool) bool { return !s })); n != 1 {
		t.Errorf("%d of them started the machine, want 1", n)
	}
	// Without the machine's lock the driver itself refuses.
	if err := r.tryStart(vm, false); err == nil {
		t.Error("a second Start succeeded")
	}
	o := r.observe(vm, driver.DepthBrief, driver.Alive)
	if found, err := r.proc.guests(); err != nil || len(found[o.Guest.UID]) != 1 {
		t.Errorf("%d processes have the uuid (%v), want 1", len(found[o.Guest.UID]), err)
	}
}

// silentQEMU is an emulator that answers probes as the real one and never answers a
// guest's monitor.
func silentQEMU(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	return program(t, `for word; do if [ "$word" = -uuid ]; then exec sleep 60; fi; done; exec `+path+` "$@"`+"\n")
}

func TestStart_contextEnds_processAndRunDirAreGone(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard, func(s *manifest.VirtualMachineSpec) { s.Emulator.Binary = silentQEMU(t) })
	if _, err := r.EnsureIdentity(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := r.Start(ctx, driver.StartRequest{VM: vm})
	if !errors.Is(err, context.DeadlineExceeded) || lifecycle(err) == nil {
		t.Errorf("Start = %v, want the context's end", err)
	}
	if files := r.runFiles(); len(files) > 0 {
		t.Errorf("the run dir still holds %v", files)
	}
	r.observe(vm, driver.DepthBrief, driver.Absent)
}

func TestStart_noAnswerInTime_isUnresponsiveAndEnded(t *testing.T) {
	r := newRig(t)
	r.timing.Start = 300 * time.Millisecond
	vm := r.vm("web", bareBoard, func(s *manifest.VirtualMachineSpec) { s.Emulator.Binary = silentQEMU(t) })
	err := r.tryStart(vm, false)
	if !errors.Is(err, driver.ErrUnresponsive) || !strings.Contains(err.Error(), "--timeouts start=") {
		t.Errorf("Start = %v, want ErrUnresponsive with the remedy", err)
	}
	r.observe(vm, driver.DepthBrief, driver.Absent)
}

func TestStart_clientGone_nextVisitorIsServed(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	for range 3 {
		var reply uuidReply
		err := rigAt(t, r.layout).Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
			return c.Do(ctx, "query-uuid", nil, &reply)
		})
		if err != nil || reply.UUID == "" {
			t.Fatalf("Visit = %v, uuid %q", err, reply.UUID)
		}
	}
}
