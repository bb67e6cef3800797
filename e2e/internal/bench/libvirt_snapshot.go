package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// guestDomain is the machine of the cases with a booted guest in libvirt's words.
const guestDomain = `<domain type="qemu">
  <name>%[1]s</name>
  <memory unit="MiB">256</memory>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    <kernel>%[3]s</kernel><initrd>%[4]s</initrd><cmdline>console=ttyS0 quiet</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>%[2]s</emulator>
    <disk type="file" device="disk"><driver name="qemu" type="qcow2"/><source file="%[5]s"/><target dev="vda" bus="virtio"/></disk>
    <serial type="file"><source path="%[6]s"/></serial>
    <memballoon model="none"/>
  </devices>
%[7]s</domain>
`

// asRoot has the system's daemon run a domain as root, who alone reaches the folder of
// the benchmarks.
const asRoot = `  <seclabel type="static" model="dac" relabel="no"><label>+0:+0</label></seclabel>
`

// openLibvirtSnapshot compares snapshots with memory of a booted guest with libvirt's,
// or going back to one.
func openLibvirtSnapshot(ctx context.Context, lab *Lab, revert bool) (Bench, error) {
	v, err := lab.reachLibvirt(ctx)
	if err != nil {
		return Bench{}, err
	}
	g, err := openGuests(ctx, lab, "libsnap"+strconv.FormatBool(revert), false)
	if err != nil {
		return Bench{}, err
	}
	closeAll := func(ctx context.Context) error { return errors.Join(g.close(ctx), v.close(ctx)) }
	if err := v.bootGuest(ctx, g); err != nil {
		return Bench{}, errors.Join(err, closeAll(ctx))
	}
	var tag tags
	now := ""
	take := func(ctx context.Context) error { return g.maqet(ctx, "snapshot", "create", guestName, now) }
	takeTheirs := func(ctx context.Context) error { return v.virsh(ctx, "snapshot-create-as", v.name, now) }
	b := Bench{
		Ours: Half{
			Before: func(context.Context) error { now = tag.next(); return nil },
			Do:     take,
			After:  func(ctx context.Context) error { return g.maqet(ctx, "snapshot", "delete", guestName, now) },
		},
		Raw: Half{
			Do:    takeTheirs,
			After: func(ctx context.Context) error { return v.virsh(ctx, "snapshot-delete", v.name, now) },
		},
		Close: closeAll,
	}
	if !revert {
		return b, nil
	}
	now = "base"
	if err := errors.Join(take(ctx), takeTheirs(ctx)); err != nil {
		return Bench{}, errors.Join(err, closeAll(ctx))
	}
	b.Ours = Half{Do: func(ctx context.Context) error {
		return g.maqet(ctx, "snapshot", "restore", guestName, now, "--no-safety")
	}, After: g.check}
	b.Raw = Half{Do: func(ctx context.Context) error { return v.virsh(ctx, "snapshot-revert", v.name, now) }}
	return b, nil
}

// bootGuest defines and starts a domain like the guest, and waits until it has booted.
func (v *libvirt) bootGuest(ctx context.Context, g *guests) error {
	emulator, err := exec.LookPath(Emulator)
	if err != nil {
		return fmt.Errorf("find the emulator for libvirt: %w", err)
	}
	disk, log := filepath.Join(g.raw, "libvirt.qcow2"), filepath.Join(g.raw, "libvirt.log")
	if err := v.lab.run(ctx, nil, "qemu-img", "create", "-q", "-f", "qcow2", disk, rawDiskSize); err != nil {
		return err
	}
	kernel, initrd := filepath.Join(v.lab.Guest, "vmlinuz"), filepath.Join(v.lab.Guest, "initrd.img")
	label := ""
	if os.Geteuid() == 0 {
		label = asRoot
	}
	if err := v.define(ctx, fmt.Sprintf(guestDomain, v.name, emulator, kernel, initrd, disk, log, label)); err != nil {
		return err
	}
	if err := v.virsh(ctx, "start", v.name); err != nil {
		return err
	}
	return awaitLog(ctx, log, time.Now().Add(booting))
}

// define defines the domain.
func (v *libvirt) define(ctx context.Context, xml string) error {
	path := filepath.Join(v.lab.dir, "domain.xml")
	if err := os.WriteFile(path, []byte(xml), 0o600); err != nil {
		return fmt.Errorf("write libvirt's domain: %w", err)
	}
	return v.virsh(ctx, "define", path)
}
