package qemu

import (
	"fmt"
	"strconv"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// memoryID is QEMU's id of memory that virtiofsd can have, too.
const memoryID = "maqet.memory"

// filesystemDevice is the device that shares a folder.
func filesystemDevice(d manifest.FilesystemDriver) string {
	if d == manifest.Filesystem9P {
		return driver.Device9P
	}
	return driver.DeviceVirtioFS
}

// FilesystemBackend is QEMU's id of what is behind the device of a filesystem: its own
// server of 9p, or the connection to virtiofsd.
func FilesystemBackend(name string) string { return name + ".fs" }

// sharedMemory is the end of the option -machine for a guest whose memory other
// processes have, too.
func (r *renderer) sharedMemory() string {
	if !r.VM.Spec.SharesMemory() {
		return ""
	}
	return ",memory-backend=" + memoryID
}

// memoryObject renders that memory, which is a file without a name: virtiofsd gets its
// descriptor from QEMU.
func (r *renderer) memoryObject() {
	if !r.VM.Spec.SharesMemory() {
		return
	}
	const path = "spec.memory.size"
	if r.VM.Spec.Memory == nil {
		r.fail(path, "virtiofs shares the guest's memory, whose size is not known", "say it", nil)
		return
	}
	r.addJSON(path, "-object", object{
		{"qom-type", "memory-backend-memfd"}, {"id", memoryID}, {"size", r.VM.Spec.Memory.Size.Bytes()}, {"share", true},
	})
}

// filesystems renders the shared folders.
func (r *renderer) filesystems() {
	for i, f := range r.VM.Spec.Filesystems {
		path := fmt.Sprintf("spec.filesystems[%d]", i)
		model := filesystemDevice(f.Driver)
		slot := r.pciSeat(path, f.Name, model)
		backend := FilesystemBackend(f.Name)
		device := append(object{{"driver", model}, {"id", f.Name}}, seat(slot)...)
		if f.Driver == manifest.Filesystem9P {
			r.add(path, "-fsdev", ninePServer(f))
			r.addJSON(path, "-device", append(device, member{"fsdev", backend}, member{"mount_tag", f.Name}))
			continue
		}
		r.add(path, "-chardev", "socket,id="+backend+",fd="+strconv.Itoa(r.inherit(File{Kind: VirtioFS, Filesystem: f.Name})))
		r.addJSON(path, "-device", append(device, member{"chardev", backend}, member{"tag", f.Name}))
	}
}

// ninePServer is QEMU's own server of a folder.
//
// What a guest makes in it is a plain file of QEMU's user that only he can use; owner,
// mode and kind, as the guest has set them, are kept in extended attributes. So no
// guest makes a device, a link or a program with another's rights on the host. Where
// nothing can be written, attributes are those of the host.
func ninePServer(f manifest.Filesystem) string {
	model := "mapped-xattr"
	if f.ReadOnly {
		model = "none"
	}
	return fmt.Sprintf("local,id=%s,path=%s,security_model=%s,multidevs=remap,readonly=%s",
		FilesystemBackend(f.Name), doubleCommas(f.Path), model, onOff(f.ReadOnly))
}
