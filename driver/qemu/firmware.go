package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// firmwareFolders are where descriptors of firmware lie, as QEMU's own
// docs/interop/firmware.json says. A file of an earlier folder stands for those of
// its name in later ones.
func firmwareFolders() []string { return []string{"/etc/qemu/firmware", "/usr/share/qemu/firmware"} }

// descriptor is what one file says of a firmware, as far as maqet reads it.
type descriptor struct {
	file       string
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Device     string       `json:"device"`
		Mode       string       `json:"mode"`
		Executable firmwareFile `json:"executable"`
		Template   firmwareFile `json:"nvram-template"`
	} `json:"mapping"`
	Targets []struct {
		Architecture string   `json:"architecture"`
		Machines     []string `json:"machines"`
	} `json:"targets"`
	Features []string `json:"features"`
}

// firmwareFile is a file of a firmware.
type firmwareFile struct {
	Filename string `json:"filename"`
	Format   string `json:"format"`
}

// describedFiles are the descriptors in folders, in the order of their names, which is
// the order of preference.
func describedFiles(folders []string) ([]string, error) {
	byName := map[string]string{}
	for _, dir := range slices.Backward(folders) {
		entries, err := os.ReadDir(dir)
		// A folder that is not for this user tells him nothing.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		for _, e := range entries {
			if filepath.Ext(e.Name()) == ".json" {
				byName[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	files := make([]string, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		files = append(files, byName[name])
	}
	return files, nil
}

// descriptors reads all descriptors of firmware. One that cannot be read is passed over:
// it may be of a newer format.
func descriptors(folders []string) ([]descriptor, error) {
	files, err := describedFiles(folders)
	if err != nil {
		return nil, fmt.Errorf("look for firmware: %w", err)
	}
	var all []descriptor
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // G304: a descriptor of the host's
		if err != nil {
			continue
		}
		d := descriptor{file: file}
		if json.Unmarshal(text, &d) == nil { // an empty file switches one off
			all = append(all, d)
		}
	}
	return all, nil
}

// has tells whether the firmware has a feature.
func (d *descriptor) has(feature string) bool { return slices.Contains(d.Features, feature) }

// suits tells whether the firmware runs on a board of an architecture, from two flash
// chips: code, and an NVRAM that is the machine's own.
func (d *descriptor) suits(arch, board string) bool {
	m := d.Mapping
	usable := slices.Contains(d.Interfaces, "uefi") && m.Device == "flash" && (m.Mode == "" || m.Mode == "split") &&
		m.Executable.Filename != "" && m.Template.Filename != ""
	if !usable {
		return false
	}
	for _, target := range d.Targets {
		for _, pattern := range target.Machines {
			if ok, err := path.Match(pattern, board); target.Architecture == arch && ok && err == nil {
				return true
			}
		}
	}
	return false
}

// is tells whether the firmware is of a kind. Secure Boot protects only with keys
// enrolled; without it none may be, for they would be enforced.
func (d *descriptor) is(kind driver.FirmwareKind) bool {
	if kind == driver.FirmwareSecureBoot {
		return d.has("secure-boot") && d.has("enrolled-keys")
	}
	return !d.has("enrolled-keys") && !d.has("requires-smm")
}

// present tells whether the firmware's files are there.
func (d *descriptor) present() bool {
	for _, f := range []firmwareFile{d.Mapping.Executable, d.Mapping.Template} {
		if info, err := os.Stat(f.Filename); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// firmware is the host's preferred firmware of a kind for a board.
func (p *Prober) firmware(vm string, host driver.Host, board string, kind driver.FirmwareKind) (driver.Firmware, error) {
	all, err := descriptors(p.firmwareFolders)
	if err != nil {
		return driver.Firmware{}, err
	}
	suits := false
	for i := range all {
		d := &all[i]
		if !d.suits(host.Arch, board) || !d.present() {
			continue
		}
		suits = true
		if d.is(kind) {
			m := d.Mapping
			return driver.Firmware{
				Code: m.Executable.Filename, CodeFormat: formatOr(m.Executable.Format), SMM: d.has("requires-smm"),
				Template: m.Template.Filename, TemplateFormat: formatOr(m.Template.Format),
			}, nil
		}
	}
	return driver.Firmware{}, noFirmware(vm, host, board, kind, suits)
}

// formatOr is a file's format, which older descriptors leave out.
func formatOr(format string) string {
	if format == "" {
		return string(manifest.FormatRaw)
	}
	return format
}

// noFirmware says that the host has no firmware of a kind for a board. Suits tells
// that it has one of the other kind.
func noFirmware(vm string, host driver.Host, board string, kind driver.FirmwareKind, suits bool) *SpecError {
	if kind == driver.FirmwareSecureBoot && suits {
		return &SpecError{
			VM: vm, Path: "spec.firmware.secureBoot", Msg: fmt.Sprintf("this host has no UEFI firmware with Secure Boot and enrolled keys for board %s", board),
			Hint: "on x86 use machine.type q35, and " + firmwarePackage(host.Arch),
		}
	}
	return &SpecError{
		VM: vm, Path: "spec.firmware.uefi", Msg: fmt.Sprintf("this host has no UEFI firmware for board %s of %s", board, host.Arch),
		Hint: firmwarePackage(host.Arch) + ", or use machine.type q35, pc or virt",
	}
}

// firmwarePackage says which package has the firmware of an architecture.
func firmwarePackage(arch string) string {
	switch arch {
	case "x86_64", "i386":
		return "install the package ovmf (Debian, Ubuntu) or edk2-ovmf (Fedora, Arch)"
	case "aarch64", "arm", "riscv64":
		return fmt.Sprintf("install the package qemu-efi-%s (Debian, Ubuntu) or edk2-%s (Fedora)", arch, arch)
	default:
		return "install UEFI firmware for " + arch
	}
}

// resolveFirmware adds the firmware that vm asks for and id does not have yet. One
// that was chosen once is kept for as long as its code is there: the NVRAM fits it,
// and a newer one might not boot with it.
func (p *Prober) resolveFirmware(id *driver.Identity, vm *manifest.VirtualMachine, host driver.Host) (changed bool, err error) {
	kind := driver.FirmwareKindOf(&vm.Spec)
	if kind == "" {
		return false, nil
	}
	name := vm.Metadata.Name
	old, known := id.Firmware[kind]
	if known {
		_, err := os.Stat(old.Code)
		if err == nil {
			return false, p.stillSuits(name, host, id.Machine.Type, kind, old)
		}
		return false, &SpecError{
			VM: name, Path: "spec.firmware", Msg: "the firmware that the machine was made with is gone", Err: err,
			Hint: firmwarePackage(host.Arch) + "; it has to be this very file, for the machine's NVRAM fits it",
		}
	}
	found, err := p.firmware(name, host, id.Machine.Type, kind)
	if err != nil {
		return false, err
	}
	all := map[driver.FirmwareKind]driver.Firmware{kind: found}
	for k, f := range id.Firmware {
		if k != kind {
			all[k] = f
		}
	}
	id.Firmware = all
	return true, nil
}

// stillSuits refuses a firmware on a board that it does not run on: the board or the
// emulator may have changed since it was chosen. Without a descriptor of it nothing is
// known against it.
func (p *Prober) stillSuits(vm string, host driver.Host, board string, kind driver.FirmwareKind, f driver.Firmware) error {
	all, err := descriptors(p.firmwareFolders)
	if err != nil {
		return err
	}
	described := false
	for i := range all {
		if d := &all[i]; d.Mapping.Executable.Filename == f.Code && d.Mapping.Template.Filename == f.Template {
			if d.suits(host.Arch, board) {
				return nil
			}
			described = true
		}
	}
	if !described {
		return nil
	}
	path := "spec.firmware.uefi"
	if kind == driver.FirmwareSecureBoot {
		path = "spec.firmware.secureBoot"
	}
	return &SpecError{
		VM: vm, Path: path, Msg: fmt.Sprintf("the machine's firmware %s does not run on board %s of %s", f.Code, board, host.Arch),
		Hint: "take the former machine.type and emulator again, or remove spec.firmware",
	}
}

// isNVRAM tells whether a block node is an NVRAM.
func isNVRAM(node string) bool {
	return node == driver.FirmwareUEFI.NVRAMNode() || node == driver.FirmwareSecureBoot.NVRAMNode()
}

// prepareFirmware makes the machine's NVRAM, unless it is there. It is never made
// anew for another board or package: what the guest has written into it is the guest's.
func (d *Driver) prepareFirmware(ctx context.Context, vm *manifest.VirtualMachine, id driver.Identity) error {
	kind := driver.FirmwareKindOf(&vm.Spec)
	if kind == "" {
		return nil
	}
	f := id.Firmware[kind]
	return d.images.CreateFrom(ctx, d.layout.NVRAM(vm.Metadata.Name, string(kind)), f.Template, manifest.DiskFormat(f.TemplateFormat))
}

// checkFirmware finds firmware that this host does not have.
func (c *check) checkFirmware(p *Prober) error {
	kind := driver.FirmwareKindOf(&c.vm.Spec)
	if kind == "" {
		return nil
	}
	_, err := p.firmware(c.vm.Metadata.Name, c.host, c.board.Name, kind)
	if problem, ok := errors.AsType[*SpecError](err); ok {
		c.find(problem.Path, problem.Msg, problem.Hint)
		return nil
	}
	return err
}
