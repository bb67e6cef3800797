package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// shared are folders of the test, by name, as filesystems of the spec.
func (r *rig) shared(all ...manifest.Filesystem) func(*manifest.VirtualMachineSpec) {
	for i := range all {
		if all[i].Path == "" {
			all[i].Path = filepath.Join(filepath.Dir(r.layout.State), all[i].Name)
		}
		r.must(os.MkdirAll(all[i].Path, 0o700))
	}
	return func(s *manifest.VirtualMachineSpec) { s.Filesystems = all }
}

// openedBy are the files that a process has open.
func openedBy(t testing.TB, pid int) []string {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it has ended
	}
	var all []string
	for _, e := range entries {
		if path, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			all = append(all, path)
		}
	}
	return all
}

// virtiofsds are the processes that serve a filesystem of the machine web.
func (r *rig) virtiofsds(filesystem string) []int {
	r.t.Helper()
	lock := r.layout.VirtioFSLock("web", filesystem)
	pids, err := r.proc.pids()
	r.must(err)
	var all []int
	for _, pid := range pids {
		opened := openedBy(r.t, pid)
		if pid != os.Getpid() && (slices.Contains(opened, lock) || slices.Contains(opened, lock+" (deleted)")) {
			all = append(all, pid)
		}
	}
	return all
}

// awaitNoVirtiofsd waits until a filesystem has no process any more.
func (r *rig) awaitNoVirtiofsd(filesystem string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), realTimeout)
	defer cancel()
	for len(r.virtiofsds(filesystem)) > 0 {
		if err := pause(ctx, firstTry); err != nil {
			r.t.Fatalf("virtiofsd of %s does not end: %v", filesystem, r.virtiofsds(filesystem))
		}
	}
}

func (r *rig) write(path, text string) {
	r.t.Helper()
	r.must(os.WriteFile(path, []byte(text), 0o600))
}

func (r *rig) read(path string) string {
	r.t.Helper()
	text, err := os.ReadFile(path)
	r.must(err)
	return string(text)
}

// TestFilesystem_virtiofs_guestReadsAndWritesOverEnds mounts folders in a guest, kills its
// QEMU and does so again.
func TestFilesystem_virtiofs_guestReadsAndWritesOverEnds(t *testing.T) {
	needVirtiofsd(t)
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r := newRig(t)
	odd := filepath.Join(filepath.Dir(r.layout.State), `a,sandbox=none\,b=c d`)
	src := manifest.Filesystem{Name: "src", Path: odd}
	fixed := manifest.Filesystem{Name: "fixed", ReadOnly: true}
	readOnly := os.Geteuid() == 0 // the program of QEMU 7.2 needs root for that
	all := []manifest.Filesystem{src}
	if readOnly {
		all = append(all, fixed)
	}
	vm := r.vm("web", tinyGuest(t, ""), r.shared(all...))
	r.write(filepath.Join(odd, "from-host"), "hello guest\n")
	if readOnly {
		r.write(filepath.Join(vm.Spec.Filesystems[1].Path, "data"), "keep\n")
	}
	for round := range 2 {
		r.start(vm, false)
		g := r.shell()
		g.must("mkdir -p /src /fixed && mount -t virtiofs src /src")
		if text := g.must("cat /src/from-host"); text != "hello guest\n" {
			t.Errorf("the guest reads %q", text)
		}
		g.must(fmt.Sprintf("echo hello host %d > /src/from-guest", round))
		if text := r.read(filepath.Join(odd, "from-guest")); text != fmt.Sprintf("hello host %d\n", round) {
			t.Errorf("the host reads %q", text)
		}
		if readOnly {
			g.must("mount -t virtiofs fixed /fixed && grep -q keep /fixed/data")
			for _, command := range []string{"echo no > /fixed/data", "touch /fixed/new", "rm /fixed/data", "chmod 777 /fixed/data"} {
				if out, ok := g.run(command); ok || !strings.Contains(out, "Read-only") {
					t.Errorf("%s in a read-only folder: %v, %q", command, ok, out)
				}
			}
			if text := r.read(filepath.Join(vm.Spec.Filesystems[1].Path, "data")); text != "keep\n" {
				t.Errorf("the read-only folder holds %q", text)
			}
		}
		o := r.observe(vm, driver.DepthFull, driver.Alive)
		if len(o.Guest.Filesystems) != len(all) || o.Guest.Memory != 128<<20 || len(o.FilesystemsLost) != 0 || len(o.Guest.Devices) != 0 {
			t.Errorf("filesystems %v, devices %v, memory %d, lost %v", o.Guest.Filesystems, o.Guest.Devices, o.Guest.Memory, o.FilesystemsLost)
		}
		if files := r.runFiles(); slices.Contains(files, filepath.Base(r.layout.VirtioFSSocket("web"))) {
			t.Errorf("a socket lies in %v", files)
		}
		if round == 0 {
			r.signal("web", unix.SIGKILL)
			r.waitEnd("web")
		} else {
			r.end()
		}
		for _, f := range all {
			r.awaitNoVirtiofsd(f.Name)
		}
	}
	r.must(r.ClearRun(t.Context(), "web"))
	if files := r.runFiles(); len(files) != 0 {
		t.Errorf("the run dir holds %v", files)
	}
}

// TestFilesystem_9p_guestReadsAndWritesOverEnds is the same with QEMU's own server.
func TestFilesystem_9p_guestReadsAndWritesOverEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r := newRig(t)
	odd := filepath.Join(filepath.Dir(r.layout.State), `a,security_model=none,b=c d`)
	vm := r.vm("web", guestIn(t, "guest-generic", ""), r.shared(
		manifest.Filesystem{Name: "src", Path: odd, Driver: manifest.Filesystem9P},
		manifest.Filesystem{Name: "fixed", Driver: manifest.Filesystem9P, ReadOnly: true},
	))
	fixed := vm.Spec.Filesystems[1].Path
	r.write(filepath.Join(odd, "from-host"), "hello guest\n")
	r.write(filepath.Join(fixed, "data"), "keep\n")
	r.must(os.Symlink("data", filepath.Join(fixed, "link")))
	r.must(os.Symlink("from-host", filepath.Join(odd, "link")))
	check := func() {
		g := r.shell()
		g.must("mkdir -p /src /fixed && mount -t 9p -o trans=virtio src /src && mount -t 9p -o trans=virtio fixed /fixed")
		if text := g.must("cat /src/from-host"); text != "hello guest\n" {
			t.Errorf("the guest reads %q", text)
		}
		g.must("echo hello host > /src/from-guest")
		if text := r.read(filepath.Join(odd, "from-guest")); text != "hello host\n" {
			t.Errorf("the host reads %q", text)
		}
		// Links of the host's are no links of the guest's, and lead it nowhere.
		if out, ok := g.run("cat /src/link"); ok {
			t.Errorf("behind a link of the host the guest reads %q", out)
		}
		// What the guest says of a file is not so on the host.
		g.must("chown 7:8 /src/from-guest && chmod 4755 /src/from-guest && stat -c '%a %u %g' /src/from-guest | grep -qx '4755 7 8'")
		if uid, mode := fileOwner(t, filepath.Join(odd, "from-guest")); uid != os.Geteuid() || mode != 0o600 {
			t.Errorf("on the host it is %d's with mode %v", uid, mode)
		}
		if text := g.must("cat /fixed/link"); text != "keep\n" {
			t.Errorf("behind a link the guest reads %q", text)
		}
		for _, command := range []string{"echo no > /fixed/data", "touch /fixed/new", "rm /fixed/data"} {
			if out, ok := g.run(command); ok || !strings.Contains(out, "Read-only") {
				t.Errorf("%s in a read-only folder: %v, %q", command, ok, out)
			}
		}
	}
	for _, paused := range []bool{false, true} {
		r.start(vm, paused)
		if !paused {
			check()
		}
		o := r.observe(vm, driver.DepthFull, driver.Alive)
		if want := []driver.GFilesystem{{Name: "fixed", Driver: "9p"}, {Name: "src", Driver: "9p"}}; !slices.Equal(o.Guest.Filesystems, want) {
			t.Errorf("filesystems %v, want %v", o.Guest.Filesystems, want)
		}
		r.signal("web", unix.SIGKILL)
		r.waitEnd("web")
	}
}

func TestFilesystem_virtiofsdKilled_isNoticedAndTheNextStartHasAnother(t *testing.T) {
	needVirtiofsd(t)
	r := newRig(t)
	vm := r.vm("web", r.shared(manifest.Filesystem{Name: "src"}, manifest.Filesystem{Name: "out"}))
	r.start(vm, true)
	pids := r.virtiofsds("src")
	for _, pid := range pids {
		if sid, err := unix.Getsid(pid); err != nil || !slices.Contains(pids, sid) {
			t.Errorf("the session of %d is %d, error %v, which is none of its own", pid, sid, err)
		}
	}
	for _, pid := range pids {
		// The second may have followed the first.
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Error(err)
		}
	}
	// A process that ends has no command line any more some time before it lets go of its
	// files, and of the lock.
	ctx, cancel := context.WithTimeout(t.Context(), realTimeout)
	defer cancel()
	for !slices.Equal(r.observe(vm, driver.DepthFull, driver.Alive).FilesystemsLost, []string{"src"}) {
		if err := pause(ctx, firstTry); err != nil {
			t.Fatal("it is not noticed that the virtiofsd of src has ended")
		}
	}
	r.end()
	r.awaitNoVirtiofsd("out")
	r.start(vm, true)
	if o := r.observe(vm, driver.DepthFull, driver.Alive); len(o.FilesystemsLost) != 0 || len(r.virtiofsds("src")) == 0 {
		t.Errorf("after a restart lost are %v", o.FilesystemsLost)
	}
	r.end()
	r.awaitNoVirtiofsd("src")
}

// TestFilesystem_startFails_leavesNoVirtiofsd has a QEMU that refuses another option.
func TestFilesystem_startFails_leavesNoVirtiofsd(t *testing.T) {
	needVirtiofsd(t)
	r := newRig(t)
	vm := r.vm("web", r.shared(manifest.Filesystem{Name: "src"}), func(s *manifest.VirtualMachineSpec) {
		s.Emulator.ExtraArgs = []string{"-device", "no-such-device"}
	})
	if err := r.tryStart(vm, true); err == nil || !strings.Contains(err.Error(), "no-such-device") {
		t.Errorf("error is %v", err)
	}
	r.awaitNoVirtiofsd("src")
	if files := r.runFiles(); len(files) != 0 {
		t.Errorf("the run dir holds %v", files)
	}
}

// TestFilesystem_virtiofsdRefuses_itsWordsAreTold has a program in its place that ends.
func TestFilesystem_virtiofsdRefuses_itsWordsAreTold(t *testing.T) {
	r := newRig(t)
	bin := t.TempDir()
	script := "#!/bin/sh\n[ \"$1\" = --help ] && echo --shared-dir --readonly && exit\necho \"the folder is cursed\" >&2\nexit 1\n"
	r.must(os.WriteFile(filepath.Join(bin, virtiofsdName), []byte(script), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	err := r.tryStart(r.vm("web", r.shared(manifest.Filesystem{Name: "src"})), true)
	if err == nil || !strings.Contains(err.Error(), "the folder is cursed") {
		t.Errorf("error is %v", err)
	}
}

func TestFilesystem_missing_isFoundBeforeAnythingIsMade(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "file")
	r.write(file, "")
	vm := r.vm("web", r.shared(manifest.Filesystem{Name: "src"}), func(s *manifest.VirtualMachineSpec) {
		s.Filesystems = append(s.Filesystems,
			manifest.Filesystem{Name: "gone", Path: file + "-gone", Driver: manifest.Filesystem9P},
			manifest.Filesystem{Name: "file", Path: file, Driver: manifest.Filesystem9P})
	})
	host, err := r.prober.Host(t.Context(), "")
	r.must(err)
	bin := t.TempDir()
	r.must(os.Symlink(host.Binary, filepath.Join(bin, filepath.Base(host.Binary))))
	t.Setenv("PATH", bin)
	r.prober.vhostUserFolders = []string{bin}
	_, err = r.Start(t.Context(), driver.StartRequest{VM: vm})
	var spec *SpecError
	if !errors.As(err, &spec) || spec.Path != "spec.filesystems[0].driver" || !strings.Contains(spec.Hint, "install the package virtiofsd") {
		t.Errorf("error is %v", err)
	}
	if files := r.runFiles(); len(files) != 0 {
		t.Errorf("the run dir holds %v", files)
	}
	_, findings, err := r.prober.Check(t.Context(), vm)
	var paths []string
	for _, f := range findings {
		paths = append(paths, f.Path+": "+f.Msg)
	}
	want := []string{
		"spec.filesystems[0].driver: this host has no virtiofsd, which shares the folder",
		"spec.filesystems[1].path: " + file + "-gone does not exist",
		"spec.filesystems[2].path: " + file + " is no folder",
	}
	if err != nil || !slices.Equal(paths, want) {
		t.Errorf("findings %q, want %q, error %v", paths, want, err)
	}
	vm.Spec.Filesystems = vm.Spec.Filesystems[1:]
	if _, err = r.Start(t.Context(), driver.StartRequest{VM: vm}); !errors.As(err, &spec) || spec.Path != "spec.filesystems[0].path" {
		t.Errorf("error is %v", err)
	}
	micro := r.vm("web", r.shared(manifest.Filesystem{Name: "src", Driver: manifest.Filesystem9P}), func(s *manifest.VirtualMachineSpec) {
		s.Machine = &manifest.Machine{Type: "microvm"}
	})
	if _, findings, err := r.prober.Check(t.Context(), micro); err != nil || len(findings) != 1 || findings[0].Path != "spec.filesystems[0]" {
		t.Errorf("on microvm: findings %+v, error %v", findings, err)
	}
}

// readable is a copy of a file that any user can read.
func (r *rig) readable(path string) string {
	r.t.Helper()
	to := filepath.Join(filepath.Dir(r.layout.State), filepath.Base(path))
	r.write(to, r.read(path))
	r.must(os.Chmod(to, 0o644))
	return to
}

// TestFilesystem_runAs_hasTheUsersRightsOnly has a guest that is root, and is nobody but the
// user on the host.
func TestFilesystem_runAs_hasTheUsersRightsOnly(t *testing.T) {
	needVirtiofsd(t)
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r, a := newAccountRig(t)
	vm := r.vm("web", tinyGuest(t, ""), runAs(a.name), r.shared(manifest.Filesystem{Name: "src"}, manifest.Filesystem{Name: "fixed", ReadOnly: true}))
	src, fixed := vm.Spec.Filesystems[0].Path, vm.Spec.Filesystems[1].Path
	for _, dir := range []string{src, fixed} {
		r.must(os.Chown(dir, a.uid, a.gid))
		r.write(filepath.Join(dir, "secret"), "root's\n") // which the user cannot read
	}
	vm.Spec.Boot.Kernel.Image = r.readable(vm.Spec.Boot.Kernel.Image)
	vm.Spec.Boot.Kernel.Initrd = r.readable(vm.Spec.Boot.Kernel.Initrd)
	r.start(vm, false)
	for _, name := range []string{"src", "fixed"} {
		pids := r.virtiofsds(name)
		for _, pid := range pids {
			if uids := statusOf(t, pid, "Uid"); uids[0] != strconv.Itoa(a.uid) || uids[1] != strconv.Itoa(a.uid) {
				t.Errorf("virtiofsd of %s has the users %v, want %d", name, uids, a.uid)
			}
		}
		if len(pids) == 0 {
			t.Errorf("nobody serves %s", name)
		}
	}
	g := r.shell()
	g.must("mkdir -p /src /fixed && mount -t virtiofs src /src && mount -t virtiofs fixed /fixed && echo mine > /src/new")
	if uid, _ := fileOwner(t, filepath.Join(src, "new")); uid != a.uid {
		t.Errorf("the guest's file belongs to %d, want %d", uid, a.uid)
	}
	if out, ok := g.run("cat /src/secret"); ok {
		t.Errorf("the guest reads %q", out)
	}
	if out, ok := g.run("touch /fixed/new"); ok || !strings.Contains(out, "Read-only") {
		t.Errorf("the guest writes into a read-only folder: %v, %q", ok, out)
	}
	r.end()
	r.awaitNoVirtiofsd("src")
	r.awaitNoVirtiofsd("fixed")
}
