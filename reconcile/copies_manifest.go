package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// cloned is the manifest of a machine that is made of a snapshot of another one: the
// same, without what only one of two machines may have. In are the disks that the
// snapshot is on, and copied are those of them that the new machine gets. Notes say each
// difference in words.
func cloned(from *manifest.VirtualMachine, name, tag string, in []string) (vm *manifest.VirtualMachine, copied, notes []string) {
	vm = from.DeepCopy()
	vm.Metadata.Name = name
	c := &cloning{vm: vm, tag: tag, in: in}
	c.disks()
	c.nics()
	c.rest(from)
	return vm, c.copied, c.notes
}

type cloning struct {
	vm            *manifest.VirtualMachine
	tag           string
	in            []string
	copied, notes []string
}

func (c *cloning) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// disks keeps the disks that are copied, and those that nobody writes to.
func (c *cloning) disks() {
	s := &c.vm.Spec
	var kept []manifest.Disk
	for _, d := range s.Disks {
		switch {
		case slices.Contains(c.in, d.Name):
			c.copied = append(c.copied, d.Name)
			if d.File != "" {
				c.note("disk %s: it is a copy of %s, with a size in place of the file", d.Name, d.File)
				d.File, d.Format = "", manifest.FormatQcow2
			}
			if d.ReadOnly {
				c.note("disk %s: it is read-only, as in the manifest of now", d.Name)
			}
		case d.ReadOnly || d.Media == manifest.MediaCDROM:
			// Both read the same.
		default:
			c.note("disk %s: removed, since snapshot %s does not have it", d.Name, c.tag)
			c.unboot(d.Name)
			continue
		}
		kept = append(kept, d)
	}
	s.Disks = kept
	nvram := ""
	if kind := driver.FirmwareKindOf(s); kind != "" {
		nvram = kind.NVRAMNode()
	}
	for _, name := range c.in {
		switch {
		case slices.Contains(c.copied, name):
		case name == nvram:
			c.copied = append(c.copied, name)
		default:
			c.note("disk %s: left out, since the machine's manifest has it no more; maqet snapshot export writes it into a file", name)
		}
	}
}

// unboot takes a name out of the boot order.
func (c *cloning) unboot(name string) {
	if b := c.vm.Spec.Boot; b != nil {
		b.Order = slices.DeleteFunc(b.Order, func(n string) bool { return n == name })
	}
}

// nics takes away what two machines on one host or network would quarrel about.
func (c *cloning) nics() {
	s := &c.vm.Spec
	forwards := false
	for i := range s.NICs {
		n := &s.NICs[i]
		if n.MAC != "" {
			c.note("nic %s: its mac %s is removed; it gets one of its own", n.Name, n.MAC)
			n.MAC = ""
		}
		if n.User != nil && len(n.User.Forward) > 0 {
			c.note("nic %s: its forwards %s are removed; give it others", n.Name, strings.Join(n.User.Forward, ", "))
			n.User.Forward, forwards = nil, true
		}
	}
	if r := s.Readiness; r != nil && r.TCP != nil && (r.TCP.Host != "" || forwards) {
		where := fmt.Sprintf("port %d by a forward", r.TCP.Port)
		if r.TCP.Host != "" {
			where = fmt.Sprintf("%s port %d, which is the other machine", r.TCP.Host, r.TCP.Port)
		}
		c.note("readiness: tcp is removed, since it asks %s", where)
		s.Readiness = nil
	}
}

// rest tells what only a person can see to.
func (c *cloning) rest(from *manifest.VirtualMachine) {
	s := &c.vm.Spec
	if e := s.Emulator; e != nil && len(e.ExtraArgs) > 0 {
		c.note("emulator.extraArgs: kept; see that they name nothing that only one machine may have: %s", strings.Join(e.ExtraArgs, " "))
	}
	for _, d := range s.Devices {
		if strings.HasPrefix(d.Driver, "vfio-") || d.Driver == "usb-host" {
			c.note("device %s: kept; it hands a device of the host to one machine at a time", d.Name)
		}
	}
	for _, f := range s.Filesystems {
		if !f.ReadOnly {
			c.note("filesystem %s: kept; both machines write to %s", f.Name, f.Path)
		}
	}
	if s.TPM != nil {
		c.note("tpm: it is a new one; what the guest has sealed with the old one it cannot open")
	}
	if s.CloudInit != nil {
		c.note("cloudInit: the guest provisions at its first start, as the new machine that it is; see that nothing in it belongs to %s alone", from.Metadata.Name)
		return
	}
	c.note("the guest itself has the host name, machine-id, SSH host keys and static addresses of %s", from.Metadata.Name)
}

// sizeClone gives the size of the copy to disks that were files before.
func sizeClone(vm *manifest.VirtualMachine, copied []driver.CopiedDisk) {
	for i := range vm.Spec.Disks {
		d := &vm.Spec.Disks[i]
		if d.File != "" || d.Image != "" || d.Size > 0 || d.NBD != nil {
			continue
		}
		for _, made := range copied {
			if made.Disk == d.Name {
				d.Size = manifest.Quantity(made.Size)
			}
		}
	}
}
