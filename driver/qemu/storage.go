package qemu

import (
	"context"
	"errors"

	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// CreateDisk makes the storage of a disk that has a size. What exists is never
// touched, and is no error.
func (d *Driver) CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, name string) error {
	op := "create disk " + name + " of"
	want, maker, src, err := d.made(vm, name)
	if err != nil {
		return fail(op, vm.Metadata.Name, err, "make it yourself, or give the disk a size instead")
	}
	return maker.Make(ctx, want, src)
}

// made is a disk whose storage maqet makes, with what makes it and where.
func (d *Driver) made(vm *manifest.VirtualMachine, name string) (*manifest.Disk, disk.Maker, disk.Source, error) {
	for i := range vm.Spec.Disks {
		want := &vm.Spec.Disks[i]
		if want.Name != name {
			continue
		}
		maker, err := d.kinds.Maker(want)
		if err != nil {
			return nil, nil, disk.Source{}, err
		}
		return want, maker, maker.Source(want, d.layout.Disk(vm.Metadata.Name, name)), nil
	}
	return nil, nil, disk.Source{}, errors.New("the machine has no such disk; name one of spec.disks")
}
