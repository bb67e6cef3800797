package qemu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

func uefi(secure bool) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) { s.Firmware = &manifest.Firmware{UEFI: true, SecureBoot: secure} }
}

// describeFirmware writes a descriptor of a firmware whose two files lie beside it.
func describeFirmware(t *testing.T, dir, name, machines, features string) {
	t.Helper()
	code, vars := filepath.Join(dir, name+".code"), filepath.Join(dir, name+".vars")
	writeTestFile(t, code, nil)
	writeTestFile(t, vars, nil)
	writeTestFile(t, filepath.Join(dir, name+".json"), []byte(`{"interface-types": ["uefi"],
		"mapping": {"device": "flash", "executable": {"filename": "`+code+`", "format": "raw"}, "nvram-template": {"filename": "`+vars+`", "format": "raw"}},
		"targets": [{"architecture": "x86_64", "machines": ["`+machines+`"]}], "features": [`+features+`]}`))
}

func TestFirmware_descriptors_areChosenFromAsQEMUSays(t *testing.T) {
	lib, etc := t.TempDir(), t.TempDir()
	describeFirmware(t, lib, "40-enrolled", "pc-q35-*", `"secure-boot", "enrolled-keys", "requires-smm"`)
	describeFirmware(t, lib, "50-secure", "pc-q35-*", `"secure-boot", "requires-smm"`)
	describeFirmware(t, lib, "60-plain", "pc-*", ``)
	describeFirmware(t, lib, "70-later", "pc-*", ``)
	writeTestFile(t, filepath.Join(lib, "10-broken.json"), []byte("{"))
	writeTestFile(t, filepath.Join(lib, "11-memory.json"), []byte(`{"interface-types": ["uefi"], "mapping": {"device": "memory", "filename": "/x"}, "targets": [{"architecture": "x86_64", "machines": ["*"]}]}`))
	p := testProber(t)
	p.firmwareFolders = []string{etc, lib, filepath.Join(lib, "missing")}
	pick := func(board string, kind driver.FirmwareKind) (string, error) {
		f, err := p.firmware("web", testHost(), board, kind)
		return strings.TrimSuffix(filepath.Base(f.Code), ".code"), err
	}
	for _, c := range []struct {
		board string
		kind  driver.FirmwareKind
		want  string
		path  string
		says  string
	}{
		{"pc-q35-7.2", driver.FirmwareUEFI, "60-plain", "", ""},
		{"pc-i440fx-7.2", driver.FirmwareUEFI, "60-plain", "", ""},
		{"pc-q35-7.2", driver.FirmwareSecureBoot, "40-enrolled", "", ""},
		{"pc-i440fx-7.2", driver.FirmwareSecureBoot, "", "spec.firmware.secureBoot", "q35"},
		{"isapc", driver.FirmwareUEFI, "", "spec.firmware.uefi", "ovmf"},
	} {
		got, err := pick(c.board, c.kind)
		if c.want != "" {
			if err != nil || got != c.want {
				t.Errorf("%s on %s: %q, error %v, want %s", c.kind, c.board, got, err, c.want)
			}
			continue
		}
		var spec *SpecError
		if !errors.As(err, &spec) || spec.Path != c.path || !strings.Contains(spec.Hint, c.says) {
			t.Errorf("%s on %s: error %v", c.kind, c.board, err)
		}
	}
	// The administrator's file stands for the package's, and an empty one switches it off.
	describeFirmware(t, etc, "60-plain", "pc-q35-*", ``)
	if f, err := p.firmware("web", testHost(), "pc-q35-7.2", driver.FirmwareUEFI); err != nil || filepath.Dir(f.Code) != etc {
		t.Errorf("%+v, error %v", f, err)
	}
	writeTestFile(t, filepath.Join(etc, "60-plain.json"), nil)
	if got, err := pick("pc-q35-7.2", driver.FirmwareUEFI); err != nil || got != "70-later" {
		t.Errorf("%q, error %v", got, err)
	}
	// A descriptor whose files are gone is of no use.
	if err := os.Remove(filepath.Join(lib, "70-later.vars")); err != nil {
		t.Fatal(err)
	}
	if got, err := pick("pc-q35-7.2", driver.FirmwareUEFI); err == nil {
		t.Errorf("%q without its files", got)
	}
}

func TestFirmware_chosenOnce_isKeptThoughAnotherIsPreferred(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	describeFirmware(t, dir, "60-plain", "pc-q35-*", ``)
	r.prober.firmwareFolders = []string{dir}
	vm := r.vm("web", uefi(false))
	first, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	describeFirmware(t, dir, "30-new", "pc-q35-*", ``)
	again, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	if diff := cmp.Diff(first, again); diff != "" || filepath.Base(first.Firmware[driver.FirmwareUEFI].Code) != "60-plain.code" {
		t.Errorf("firmware %+v, -first +again:\n%s", first.Firmware, diff)
	}
	r.must(os.Remove(filepath.Join(dir, "60-plain.code")))
	var spec *SpecError
	if _, err := r.EnsureIdentity(t.Context(), vm); !errors.As(err, &spec) || !strings.Contains(spec.Hint, "ovmf") {
		t.Errorf("without its code: %v", err)
	}
}

func TestFirmware_chosenOnce_isRefusedOnABoardThatItDoesNotRunOn(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	describeFirmware(t, dir, "60-plain", "pc-q35-*", ``)
	r.prober.firmwareFolders = []string{dir}
	board := func(name string) func(*manifest.VirtualMachineSpec) {
		return func(s *manifest.VirtualMachineSpec) { s.Machine = &manifest.Machine{Type: name} }
	}
	_, err := r.EnsureIdentity(t.Context(), r.vm("web", uefi(false), board("q35")))
	r.must(err)
	var spec *SpecError
	if _, err := r.EnsureIdentity(t.Context(), r.vm("web", uefi(false), board("pc"))); !errors.As(err, &spec) || spec.Path != "spec.firmware.uefi" {
		t.Errorf("on another board: %v", err)
	}
	_, err = r.EnsureIdentity(t.Context(), r.vm("web", board("pc")))
	r.must(err)
	_, err = r.EnsureIdentity(t.Context(), r.vm("web", uefi(false), board("q35")))
	r.must(err)
}

func TestFirmware_missing_isFoundBeforeAnythingIsMade(t *testing.T) {
	r := newRig(t)
	r.prober.firmwareFolders = []string{t.TempDir()}
	vm := r.vm("web", uefi(false))
	err := r.tryStart(vm, true)
	var spec *SpecError
	if !errors.As(err, &spec) || spec.Path != "spec.firmware.uefi" || !strings.Contains(spec.Hint, "install the package ovmf") {
		t.Errorf("error is %v", err)
	}
	if entries, _ := os.ReadDir(r.layout.DiskDir("web")); len(entries) > 0 {
		t.Errorf("%d files were made", len(entries))
	}
	_, findings, err := r.prober.Check(t.Context(), vm)
	if err != nil || len(findings) != 1 || findings[0].Path != "spec.firmware.uefi" {
		t.Errorf("findings %+v, error %v", findings, err)
	}
}

func TestFirmware_realQEMU_isReadBack(t *testing.T) {
	needFirmware(t)
	r := newRig(t)
	for _, secure := range []bool{false, true} {
		vm := r.vm("web", uefi(secure))
		r.start(vm, true)
		o := r.observe(vm, driver.DepthFull, driver.Alive)
		kind := driver.FirmwareKindOf(&vm.Spec)
		path := r.layout.NVRAM("web", string(kind))
		if n := o.Guest.NVRAM; n == nil || n.Name != kind.NVRAMNode() || n.File != path || n.ReadOnly || n.Format != "qcow2" || len(o.Guest.Disks) != 0 {
			t.Errorf("QEMU has the NVRAM %+v and the disks %+v", n, o.Guest.Disks)
		}
		info, err := os.Stat(path)
		r.must(err)
		if info.Mode() != 0o600 {
			t.Errorf("the NVRAM's mode is %v", info.Mode())
		}
		r.end()
	}
	// Each kind has its own: going back finds what was there.
	r.start(r.vm("web", uefi(false)), true)
	r.end()
	// What is not asked for is not there.
	vm := r.vm("web")
	r.start(vm, true)
	if o := r.observe(vm, driver.DepthFull, driver.Alive); o.Guest.NVRAM != nil {
		t.Errorf("a BIOS machine has %+v", o.Guest.NVRAM)
	}
}

func TestFirmware_secureBoot_protectsItsNVRAM(t *testing.T) {
	needFirmware(t)
	c := caseNamed(t, "uefi-secureboot")
	run := startReal(t, realInput(t, c, realHost(t)))
	var chips []qomItem
	run.do(t, "qom-list", map[string]string{"path": "/machine"}, &chips)
	if smm := run.property(t, "/machine", "smm"); smm != "on" {
		t.Errorf("smm is %v", smm)
	}
	protected := 0
	for _, chip := range chips {
		if chip.Type == "child<cfi.pflash01>" {
			if run.property(t, "/machine/"+chip.Name, "secure") == true {
				protected++
			}
		}
	}
	if protected != 2 {
		t.Errorf("%d chips are written in system management mode only, want 2; %+v", protected, chips)
	}
}

// TestFirmware_snapshots_holdTheNVRAM takes snapshots of a machine with UEFI and finds
// what its firmware remembered when they are restored.
func TestFirmware_snapshots_holdTheNVRAM(t *testing.T) {
	needFirmware(t)
	r := newRig(t)
	vm := r.vm("web", uefi(false), func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{sized("root")} })
	r.start(vm, true)
	node, path := driver.FirmwareUEFI.NVRAMNode(), r.layout.NVRAM("web", string(driver.FirmwareUEFI))
	images := disk.New(disk.Config{Timing: r.timing})
	take := func(tag string, presence driver.Presence) {
		t.Helper()
		req := driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotDisk}
		r.must(r.TakeSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, presence), req))
		if diff := cmp.Diff([]string{node, "root"}, r.observe(vm, driver.DepthFull, presence).Snapshots[tag].Disks); diff != "" {
			t.Errorf("%s is on (-want +got):\n%s", tag, diff)
		}
	}
	take("online", driver.Alive)
	r.end()
	take("offline", driver.Absent)
	before := nvramBytes(t, path)
	for _, tag := range []string{"online", "offline"} {
		qemuIO(t, path, "write -P 0x5a 0 64k")
		if nvramBytes(t, path) == before {
			t.Fatal("the NVRAM was not written to")
		}
		report, err := r.RestoreSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Absent), tag)
		r.must(err)
		if nvramBytes(t, path) != before {
			t.Errorf("after restoring %s (%v) the NVRAM holds something else", tag, report.Disks)
		}
		r.must(r.DeleteSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Absent), tag))
		info, err := images.InfoAs(t.Context(), path, "qcow2")
		r.must(err)
		for _, s := range info.Snapshots {
			if s.Tag == tag {
				t.Errorf("%s is still in the NVRAM", tag)
			}
		}
	}
}

// TestFirmware_guest_bootsByUEFIAndItsNVRAMIsKept boots a guest twice.
func TestFirmware_guest_bootsByUEFIAndItsNVRAMIsKept(t *testing.T) {
	needFirmware(t)
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r := newRig(t)
	vm := r.vm("web", tinyGuest(t, ""), uefi(false), func(s *manifest.VirtualMachineSpec) {
		s.Memory.Size = 256 << 20
		s.Disks = []manifest.Disk{sized("root")}
	})
	r.start(vm, false)
	path := r.layout.NVRAM("web", string(driver.FirmwareUEFI))
	r.shell().must("test -d /sys/firmware/efi")
	// With memory, too: QEMU's own rule is that whatever can be written is a qcow2.
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	intent := driver.SnapshotIntent{Tag: "full", Method: manifest.SnapshotFull, Job: "maqet-snapshot-test"}
	r.must(r.TakeSnapshot(t.Context(), vm, o, intent))
	r.must(r.Await(t.Context(), "web", vm, driver.Awaited{Job: true}))
	r.must(r.FinishSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Alive), intent))
	if s := r.observe(vm, driver.DepthFull, driver.Alive).Snapshots["full"]; s.VMStateSize == 0 || len(s.Disks) != 2 {
		t.Errorf("the snapshot is %+v", s)
	}
	r.end()
	template, err := os.ReadFile(o.Identity.Firmware[driver.FirmwareUEFI].Template)
	r.must(err)
	first := nvramBytes(t, path)
	if first == string(template) {
		t.Error("the firmware has written nothing into its NVRAM")
	}
	r.start(vm, true)
	if nvramBytes(t, path) != first {
		t.Error("a second start has made another NVRAM")
	}
}

// nvramBytes is what an NVRAM holds, whoever has it open.
func nvramBytes(t *testing.T, path string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "raw")
	if text, err := exec.Command("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, out).CombinedOutput(); err != nil { //nolint:gosec // G204: a test's own arguments.
		t.Fatalf("qemu-img: %v: %s", err, text)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// qemuIO does something to an image of a stopped machine.
func qemuIO(t *testing.T, path, command string) {
	t.Helper()
	if text, err := exec.Command("qemu-io", "-f", "qcow2", "-c", command, path).CombinedOutput(); err != nil { //nolint:gosec // G204: a test's own arguments.
		t.Fatalf("qemu-io: %v: %s", err, text)
	}
}

func TestDescribedFiles_folderNotForThisUser_tellsNothing(t *testing.T) {
	r, a := newAccountRig(t)
	closed, open := filepath.Join(filepath.Dir(r.layout.State), "closed"), t.TempDir()
	r.must(os.Mkdir(closed, 0o700))
	writeTestFile(t, filepath.Join(closed, "a.json"), nil)
	var files []string
	r.must(a.do(func() (err error) {
		files, err = describedFiles([]string{closed, open})
		return err
	}))
	if len(files) != 0 {
		t.Errorf("found %v", files)
	}
}
