package qemu

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// newAccountRig is a rig that another user can pass through, and such a user. Only
// root can let QEMU run as him.
func newAccountRig(t *testing.T) (*rig, *account) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name := newUser(t) // before the rig, so that it is removed after the rig's processes
	r := newRig(t)
	r.must(os.Chmod(filepath.Dir(r.layout.State), 0o711))
	a, err := accountOf(r.vm("web", runAs(name)))
	if err != nil {
		t.Fatal(err)
	}
	return r, a
}

// newUser makes a user of this host, who is in a further group and is gone after the test.
func newUser(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("useradd"); err != nil {
		t.Skip("useradd is not installed")
	}
	name := "maqet-" + strings.ToLower(rand.Text()[:8])
	run := func(word ...string) {
		if out, err := exec.Command(word[0], word[1:]...).CombinedOutput(); err != nil { //nolint:gosec // G204: made up here
			t.Fatalf("%v: %v: %s", word, err, out)
		}
	}
	run("useradd", "--system", "--no-create-home", "--groups", "audio", name)
	t.Cleanup(func() { run("userdel", name) })
	return name
}

func runAs(user string) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) { s.Emulator.RunAs = user }
}

// fileOwner is the user a file belongs to, and its mode.
func fileOwner(t *testing.T, path string) (int, fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("%s has no owner", path)
	}
	return int(stat.Uid), info.Mode().Perm()
}

// statusOf is a line of /proc/PID/status.
func statusOf(t *testing.T, pid int, key string) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Fields(value)
		}
	}
	t.Fatalf("no %s of process %d", key, pid)
	return nil
}

func TestStart_runAs_processAndFilesAreTheUsers(t *testing.T) {
	t.Setenv("MAQET_TEST_TOKEN", "hidden")
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	r, a := newAccountRig(t)
	vm := r.vm("web", runAs(a.name), func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}}
		s.Serial = &manifest.Serial{Log: true}
	})
	r.start(vm, true)
	pid := r.childOf("web").pid
	id := func(n int) []string { return slices.Repeat([]string{strconv.Itoa(n)}, 4) }
	if diff := cmp.Diff([][]string{id(a.uid), id(a.gid)}, [][]string{statusOf(t, pid, "Uid"), statusOf(t, pid, "Gid")}); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	var groups []string
	for _, g := range slices.Sorted(slices.Values(a.groups)) {
		groups = append(groups, strconv.Itoa(g))
	}
	if diff := cmp.Diff(groups, statusOf(t, pid, "Groups")); diff != "" || len(groups) < 2 {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	l := r.layout
	for path, want := range map[string]fs.FileMode{
		l.RunDir("web"): 0o700, l.DiskDir("web"): 0o700, l.Disk("web", "root"): 0o600, l.SerialLog("web"): 0o600, l.PIDFile("web"): 0o600,
	} {
		if uid, mode := fileOwner(t, path); uid != a.uid || mode != want {
			t.Errorf("%s belongs to %d with mode %#o, want %d with %#o", path, uid, mode, a.uid, want)
		}
	}
	for path, want := range map[string]fs.FileMode{
		l.State: 0o711, filepath.Dir(l.DiskDir("web")): 0o711, filepath.Dir(l.LogDir("web")): 0o711, l.LogDir("web"): 0o711, l.Run: 0o711,
		l.Identity("web"): 0o600, l.Launched("web"): 0o600, l.CLISocket("web"): 0o600, l.LockDir(): 0o700,
	} {
		if uid, mode := fileOwner(t, path); uid != 0 || mode != want {
			t.Errorf("%s belongs to %d with mode %#o, want root with %#o", path, uid, mode, want)
		}
	}
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	if slices.Contains(o.Launched.Argv, "-runas") {
		t.Errorf("argv = %q", o.Launched.Argv)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	r.must(err)
	if text := string(environ); strings.Contains(text, "hidden") || strings.Contains(text, "NOTIFY_SOCKET") || !strings.Contains(text, "USER="+a.name) {
		t.Errorf("environment = %q", strings.Split(text, "\x00"))
	}
}

// TestStart_runAsWithATPM_nothingBeyondItsFolderIsGiven has a user who swaps the folder
// of his TPM for a link, again and again, while root hands over what is in it.
func TestStart_runAsWithATPM_nothingBeyondItsFolderIsGiven(t *testing.T) {
	needSWTPM(t)
	r, a := newAccountRig(t)
	vm := r.vm("web", runAs(a.name), withTPM)
	r.start(vm, true)
	r.awaitSWTPM(true)
	dir := r.layout.TPM("web")
	if uid, mode := fileOwner(t, filepath.Join(dir, "tpm2-00.permall")); uid != a.uid || mode != 0o600 {
		t.Errorf("the TPM's state belongs to %d with mode %#o", uid, mode)
	}
	r.end()
	r.awaitSWTPM(false)
	other := t.TempDir()
	file := filepath.Join(other, "tpm2-00.permall")
	r.must(os.WriteFile(file, nil, 0o600))
	aside := filepath.Join(filepath.Dir(dir), "aside")
	r.must(os.Symlink(other, aside))
	done, swapping := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(swapping)
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, aside, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 3000 {
		_ = r.handOver(vm, a) // it may be refused, and nothing else
	}
	close(done)
	<-swapping
	if uid, _ := fileOwner(t, file); uid != os.Geteuid() {
		t.Errorf("%s was given to %d", file, uid)
	}
}

func TestStart_runAs_orderlyEndIsNoCrash(t *testing.T) {
	r, a := newAccountRig(t)
	const powerManagement = 0x604
	image := bootSector(t, outWord(powerManagement, 0x2000)...)
	kept := filepath.Join(filepath.Dir(r.layout.State), "boot.raw")
	r.must(os.Rename(image, kept))
	r.must(os.Chown(kept, a.uid, a.gid))
	vm := r.vm("web", runAs(a.name), func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "boot", File: kept, Format: manifest.FormatRaw}}
	})
	r.start(vm, false)
	r.waitEnd("web")
	o := r.observe(vm, driver.DepthBrief, driver.Absent)
	if o.Ended == nil || o.Ended.Cause != driver.EndGuest || slices.Contains(r.runFiles(), "qemu.pid") {
		t.Errorf("Ended = %+v with files %v, want a power-off without a pid file", o.Ended, r.runFiles())
	}
}

func TestStart_runAsChanges_filesFollow(t *testing.T) {
	r, a := newAccountRig(t)
	disk := func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}} }
	for _, step := range []struct {
		user string
		uid  int
	}{{"", 0}, {a.name, a.uid}, {"", 0}} {
		vm := r.vm("web", runAs(step.user), disk)
		r.start(vm, true)
		for _, path := range []string{r.layout.DiskDir("web"), r.layout.Disk("web", "root"), r.layout.RunDir("web")} {
			if uid, _ := fileOwner(t, path); uid != step.uid {
				t.Errorf("runAs %q: %s belongs to %d, want %d", step.user, path, uid, step.uid)
			}
		}
		r.must(r.Quit(t.Context(), "web"))
		r.waitEnd("web")
	}
}

func TestForget_runAs_disksAreKeptOrDeleted(t *testing.T) {
	for name, deleteDisks := range map[string]bool{"keep": false, "delete": true} {
		t.Run(name, func(t *testing.T) {
			r, a := newAccountRig(t)
			vm := r.vm("web", runAs(a.name), func(s *manifest.VirtualMachineSpec) {
				s.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}}
			})
			r.start(vm, true)
			r.must(r.Quit(t.Context(), "web"))
			r.waitEnd("web")
			kept, err := r.Forget(t.Context(), "web", deleteDisks)
			r.must(err)
			if _, err := os.Stat(filepath.Join(kept, "root.qcow2")); (err == nil) == deleteDisks {
				t.Errorf("kept at %q: %v", kept, err)
			}
			for _, path := range []string{r.layout.DiskDir("web"), r.layout.RunDir("web"), r.layout.LogDir("web")} {
				if !isGone(path) {
					t.Errorf("%s is still there", path)
				}
			}
		})
	}
}

func TestStart_runAs_fileOutOfReachIsNamedBeforeStart(t *testing.T) {
	r, a := newAccountRig(t)
	dir := filepath.Dir(r.layout.State)
	mine := filepath.Join(dir, "mine")
	r.must(os.WriteFile(mine, make([]byte, 1<<20), 0o600))
	seen := filepath.Join(dir, "seen")
	r.must(os.WriteFile(seen, make([]byte, 1<<20), 0o600))
	r.must(os.Chmod(seen, 0o644))
	cases := map[string]struct {
		path   string
		change func(*manifest.VirtualMachineSpec)
	}{
		"kernel": {"spec.boot.kernel.image", func(s *manifest.VirtualMachineSpec) {
			s.Boot = &manifest.Boot{Kernel: &manifest.Kernel{Image: mine}}
		}},
		"initrd": {"spec.boot.kernel.initrd", func(s *manifest.VirtualMachineSpec) {
			s.Boot = &manifest.Boot{Kernel: &manifest.Kernel{Image: seen, Initrd: mine}}
		}},
		"disk": {"spec.disks[1].file", func(s *manifest.VirtualMachineSpec) {
			s.Disks = []manifest.Disk{
				{Name: "a", File: seen, Format: manifest.FormatRaw, ReadOnly: true},
				{Name: "b", File: mine, Format: manifest.FormatRaw, ReadOnly: true},
			}
		}},
		"disk that is only readable": {"spec.disks[0].file", func(s *manifest.VirtualMachineSpec) {
			s.Disks = []manifest.Disk{{Name: "a", File: seen, Format: manifest.FormatRaw}}
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			vm := r.vm("web", runAs(a.name), c.change)
			_, findings, err := r.prober.Check(t.Context(), vm)
			r.must(err)
			if len(findings) != 1 || findings[0].Path != c.path || !strings.Contains(findings[0].Msg, a.name) || !strings.Contains(findings[0].Msg, dir) {
				t.Errorf("findings = %+v, want one at %s with file and user", findings, c.path)
			}
			var problem *AccountError
			err = r.tryStart(vm, true)
			if !errors.As(err, &problem) || problem.User != a.name || !strings.Contains(err.Error(), c.path) {
				t.Errorf("Start = %v, want a refusal that names user and file", err)
			}
			if left := r.runFiles(); len(left) > 0 {
				t.Errorf("the run dir still holds %v", left)
			}
		})
	}
}

func TestStart_runAs_stateDirOutOfReachIsNamed(t *testing.T) {
	r, a := newAccountRig(t)
	r.must(os.Chmod(filepath.Dir(r.layout.State), 0o700))
	err := r.tryStart(r.vm("web", runAs(a.name)), true)
	if life := lifecycle(err); life == nil || !strings.Contains(life.Hint, "--state-dir") || !strings.Contains(err.Error(), r.layout.RunDir("web")) {
		t.Errorf("Start = %v, want a refusal that names the folder and the remedy", err)
	}
}

func TestAccountOf_unusableUser_isRefusedWithRemedy(t *testing.T) {
	r := newRig(t)
	t.Run("unknown", func(t *testing.T) {
		vm := r.vm("web", bareBoard, runAs("no-such-user"))
		var problem *AccountError
		if err := r.tryStart(vm, true); !errors.As(err, &problem) || problem.User != "no-such-user" || !strings.Contains(err.Error(), "useradd") {
			t.Errorf("Start = %v, want a refusal that names the user and the remedy", err)
		}
		_, findings, err := r.prober.Check(t.Context(), vm)
		r.must(err)
		if !slices.ContainsFunc(findings, func(f Finding) bool {
			return f.Path == "spec.emulator.runAs" && strings.Contains(f.Msg, "no-such-user")
		}) {
			t.Errorf("findings = %+v, want one at spec.emulator.runAs", findings)
		}
	})
	t.Run("maqet is not root", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root")
		}
		nobody := &account{name: "nobody", uid: 65534, gid: 65534}
		var err error
		// This thread is somebody else for a moment.
		r.must(nobody.do(func() error { _, err = accountOf(r.vm("web", runAs("daemon"))); return nil }))
		var problem *AccountError
		if !errors.As(err, &problem) || !strings.Contains(problem.Hint, "run maqet as root") {
			t.Errorf("accountOf = %v, want that only root can", err)
		}
	})
	t.Run("his own name is nothing special", func(t *testing.T) {
		a, err := accountOf(r.vm("web", runAs(ownName(t))))
		if err != nil || a != nil {
			t.Errorf("accountOf = %+v, %v, want none", a, err)
		}
	})
}

// ownName is the name of the user that the test runs as.
func ownName(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestAccountDo_rights_areOfThatThreadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	nobody := &account{name: "nobody", uid: 65534, gid: 65534}
	err := nobody.do(func() error {
		if unix.Geteuid() != 65534 {
			return fmt.Errorf("euid is %d", unix.Geteuid())
		}
		_, err := os.ReadFile("/etc/shadow")
		return err
	})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("reading as another user = %v, want permission denied", err)
	}
	for range 100 {
		if os.Geteuid() != 0 {
			t.Fatal("the rights leaked to another goroutine")
		}
	}
}

func TestObserve_recordsPlantedByTheUser_areNotBelieved(t *testing.T) {
	r, a := newAccountRig(t)
	vm := r.vm("web", runAs(a.name), bareBoard)
	r.start(vm, false)
	text, err := os.ReadFile(r.layout.Launched("web"))
	r.must(err)
	r.must(os.Remove(r.layout.Launched("web")))
	plants := map[string]func(path string) error{
		"his own file": func(path string) error {
			return errors.Join(os.WriteFile(path, text, 0o600), os.Chown(path, a.uid, a.gid)) //nolint:gosec // G703: a file of the layout
		},
		"a pipe": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link": func(path string) error { return os.Symlink("/etc/hostname", path) },
	}
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			r.must(plant(r.layout.Launched("web")))
			o := r.Observe(t.Context(), "web", vm, driver.DepthBrief)
			if o.Presence != driver.Unknown || o.Reason != driver.ReasonLookFailed {
				t.Errorf("presence = %s (%s), want Unknown", o.Presence, o.Message)
			}
			if err := r.Kill(t.Context(), "web"); err == nil {
				t.Error("Kill believed it")
			}
			r.must(os.Remove(r.layout.Launched("web")))
		})
	}
}

// TestSnapshotRecord_plantedByTheUser_isNotBelieved has records that the user of a QEMU
// put into the machine's folder, which is his. What a record says is started by a restore.
func TestSnapshotRecord_plantedByTheUser_isNotBelieved(t *testing.T) {
	r, a := newAccountRig(t)
	vm := r.vm("web", runAs(a.name), func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}} })
	r.start(vm, true)
	r.must(r.TakeSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Alive), diskIntent("nightly")))
	path := r.layout.Snapshot("web", "nightly")
	text, err := os.ReadFile(path)
	r.must(err)
	if record, err := r.snapshots().record("web", "nightly"); err != nil || record == nil {
		t.Fatalf("the record is %v, error %v", record, err)
	}
	for name, plant := range map[string]func() error{
		"his own file": func() error {
			return errors.Join(os.WriteFile(path, text, 0o600), os.Chown(path, a.uid, a.gid)) //nolint:gosec // G703: a file of the layout
		},
		"a pipe": func() error { return unix.Mkfifo(path, 0o600) },
		"a link": func() error { return os.Symlink("/etc/hostname", path) },
	} {
		t.Run(name, func(t *testing.T) {
			r.must(os.Remove(path))
			r.must(plant())
			if record, err := r.snapshots().record("web", "nightly"); err == nil {
				t.Errorf("the record is %v", record)
			}
			if o := r.observe(vm, driver.DepthFull, driver.Alive); o.Snapshots["nightly"].Record != nil {
				t.Error("the observation has it")
			}
		})
	}
}

func TestGive_linksAndPipes_areRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"symlink":  func(path string) error { return os.Symlink(target, path) },
		"hardlink": func(path string) error { return os.Link(target, path) },
		"pipe":     func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		path := filepath.Join(dir, name)
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		if err := give(path, 65534, 65534); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: give = %v, want a refusal", name, err)
		}
	}
	if uid, _ := fileOwner(t, target); uid != 0 {
		t.Errorf("the target was given to %d", uid)
	}
}

func TestStart_descriptorsAndMask_areItsOwn(t *testing.T) {
	r := newRig(t)
	leak, err := os.CreateTemp(t.TempDir(), "leak")
	r.must(err)
	defer func() { _ = leak.Close() }() // nothing was written
	// As whoever started maqet may have left one open.
	open, err := unix.FcntlInt(leak.Fd(), unix.F_DUPFD, 100)
	r.must(err)
	defer func() { _ = unix.Close(open) }()
	r.start(r.vm("web", bareBoard), false)
	pid := r.childOf("web").pid
	if mask := statusOf(t, pid, "Umask"); !slices.Equal(mask, []string{"0077"}) {
		t.Errorf("umask = %v, want 0077", mask)
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	r.must(err)
	own := []string{"/dev/null", r.layout.QEMULog("web"), r.layout.PIDFile("web"), "socket:", "anon_inode:", "/memfd:", "pipe:"}
	pipes := 0
	for _, e := range entries {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if !slices.ContainsFunc(own, func(p string) bool { return strings.HasPrefix(to, p) }) {
			t.Errorf("QEMU has descriptor %s: %s", e.Name(), to)
		}
		if strings.HasPrefix(to, "pipe:") {
			pipes++
		}
	}
	if pipes != 0 {
		t.Errorf("QEMU has %d ends of pipes, and opens none itself", pipes)
	}
}
