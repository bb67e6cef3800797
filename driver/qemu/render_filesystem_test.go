package qemu

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// filesystemCases are machines that share folders.
func filesystemCases() []argvCase {
	shared := func(board string) func(string) manifest.VirtualMachineSpec {
		return func(dir string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Machine: &manifest.Machine{Type: board}, Memory: &manifest.Memory{Size: 64 << 20},
				Disks: []manifest.Disk{sized("root")},
				Filesystems: []manifest.Filesystem{
					{Name: "src", Path: dir + "/src"},
					{Name: "docs", Path: dir + `/a,readonly=off=\b,,c`, Driver: manifest.Filesystem9P, ReadOnly: true},
					{Name: "out", Path: dir + "/out", Driver: manifest.Filesystem9P},
				},
				Devices: []manifest.Device{{Name: "rng", Driver: "virtio-rng-pci"}},
			}
		}
	}
	return []argvCase{
		{name: "filesystems", spec: shared("q35"), earlier: func(dir string) manifest.VirtualMachineSpec {
			// It was without them before, and nothing else moves.
			s := shared("q35")(dir)
			s.Filesystems = nil
			return s
		}},
		{name: "filesystems-pc", spec: shared("pc")},
		{name: "filesystems-9p", spec: func(dir string) manifest.VirtualMachineSpec {
			// Its memory is QEMU's own affair.
			s := shared("q35")(dir)
			s.Filesystems = s.Filesystems[1:]
			return s
		}},
		{name: "filesystems-own-memory", spec: func(dir string) manifest.VirtualMachineSpec {
			s := shared("q35")(dir)
			s.Filesystems = s.Filesystems[:1]
			s.Machine.Properties = props("memory-backend", "ram")
			s.Emulator = &manifest.Emulator{ExtraArgs: []string{"-object", "memory-backend-memfd,id=ram,size=64M,share=on"}}
			return s
		}},
	}
}

// needVirtiofsd skips a test where virtiofsd is not installed.
func needVirtiofsd(t testing.TB) {
	t.Helper()
	if path, err := findVirtiofsd(vhostUserFolders()); path == "" || err != nil {
		t.Skipf("virtiofsd is not installed (error %v)", err)
	}
	if os.Geteuid() == 0 {
		return
	}
	if name := forbiddenNamespaces(os.Geteuid()); name != "" {
		t.Skip("no user namespaces: " + name)
	}
}

// openVirtioFS starts a virtiofsd, and is QEMU's end of the connection.
func openVirtioFS(t testing.TB, in RenderInput, name string) *os.File {
	t.Helper()
	needVirtiofsd(t)
	locks := filelock.New()
	l := &launch{
		name: in.VM.Metadata.Name, vm: in.VM,
		driver: &Driver{layout: in.Layout, timing: timing.Default(), prober: NewProber(in.Layout, timing.Default(), locks)},
	}
	end, err := l.openShare(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.inherited = []*os.File{null}
	if err := l.startShares(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := null.Close(); err != nil {
		t.Error(err)
	}
	return end
}

// TestRender_realQEMU_filesystemsAreAsAsked reads back what QEMU made of the options,
// commas and all.
func TestRender_realQEMU_filesystemsAreAsAsked(t *testing.T) {
	needVirtiofsd(t)
	c := caseNamed(t, "filesystems")
	c.paused = true
	in := realInput(t, c, realHost(t))
	run := startReal(t, in)
	var memory struct {
		Base int64 `json:"base-memory"`
	}
	run.do(t, "query-memory-size-summary", nil, &memory)
	if memory.Base != 64<<20 {
		t.Errorf("memory is %d", memory.Base)
	}
	for _, want := range []struct{ path, property, value string }{
		{"/machine/peripheral/src", "tag", "src"},
		{"/machine/peripheral/src", "chardev", "src.fs"},
		{"/machine/peripheral/docs/virtio-backend", "mount_tag", "docs"},
		{"/machine/peripheral/docs/virtio-backend", "fsdev", "docs.fs"},
		{"/objects/" + memoryID, "type", "memory-backend-memfd"},
	} {
		if got := run.property(t, want.path, want.property); got != want.value {
			t.Errorf("%s of %s is %v, want %q", want.property, want.path, got, want.value)
		}
	}
	if shared := run.property(t, "/objects/"+memoryID, "share"); shared != true {
		t.Errorf("memory is shared: %v", shared)
	}
	// QEMU shows no options of its servers. It has the folder open, whose name is whole.
	docs := in.VM.Spec.Filesystems[1].Path
	if !strings.Contains(docs, ",,") || !slices.Contains(openedBy(t, run.cmd.Process.Pid), docs) {
		t.Errorf("QEMU has not %q open but %q", docs, openedBy(t, run.cmd.Process.Pid))
	}
}

func TestSnapshotPreflight_filesystems_blockOnlyMemory(t *testing.T) {
	obs := driver.Observed{Presence: driver.Alive, Guest: &driver.Guest{
		Disks:       []driver.GDisk{{Name: "root", Format: "qcow2"}},
		Filesystems: []driver.GFilesystem{{Name: "docs", Driver: "9p"}, {Name: "src", Driver: "virtiofs"}},
	}}
	vm := testVM("web", manifest.VirtualMachineSpec{})
	if blockers := SnapshotPreflight(vm, obs, manifest.SnapshotDisk); len(blockers) != 0 {
		t.Errorf("disks are blocked: %v", blockers)
	}
	blockers := SnapshotPreflight(vm, obs, manifest.SnapshotFull)
	if len(blockers) != 2 {
		t.Fatalf("blockers of memory: %v", blockers)
	}
	for i, want := range []string{
		"filesystem docs: QEMU cannot save the memory of a guest that has mounted a folder by 9p (use method Disk, or remove it from spec.filesystems)",
		"filesystem src: QEMU cannot save the memory of a guest that shares a folder by virtiofs (use method Disk, or remove it from spec.filesystems)",
	} {
		if got := blockers[i].String(); got != want {
			t.Errorf("blocker %q, want %q", got, want)
		}
	}
}

// TestSnapshot_realQEMU_savesNoMemoryBesideVirtioFS shows why it is a blocker.
func TestSnapshot_realQEMU_savesNoMemoryBesideVirtioFS(t *testing.T) {
	needVirtiofsd(t)
	c := caseNamed(t, "filesystems")
	run := startReal(t, realInput(t, c, realHost(t)))
	var said string
	run.do(t, "human-monitor-command", map[string]string{"command-line": "savevm x"}, &said)
	if !strings.Contains(said, "vhost-user-fs") {
		t.Errorf("QEMU says %q to a snapshot with memory; it is a blocker no more", said)
	}
}
