package manifest

import "fmt"

// FilesystemDriver is how a folder of the host is shared with the guest.
type FilesystemDriver string

// The drivers. Absent: virtiofs.
const (
	// FilesystemVirtioFS is a process of virtiofsd beside QEMU.
	FilesystemVirtioFS FilesystemDriver = "virtiofs"
	// Filesystem9P is a server within QEMU.
	Filesystem9P FilesystemDriver = "9p"
)

// Filesystem is a folder of the host that the guest can mount by its name.
type Filesystem struct {
	// Name names the filesystem within the machine, and is the tag that the guest
	// mounts it by.
	Name string `json:"name"`
	// Path is the folder. A relative one begins at the manifest's own folder.
	Path string `json:"path"`
	// Driver is virtiofs or 9p. Absent: virtiofs.
	Driver FilesystemDriver `json:"driver,omitempty"`
	// ReadOnly keeps the guest from changing anything in the folder. Absent: false.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// memoryBackend is the property of a machine by which its author brings the guest's
// memory himself.
const memoryBackend = "memory-backend"

// SharesMemory tells whether maqet has to make the guest's memory such that another
// process can have it, too, as virtiofsd does.
func (s *VirtualMachineSpec) SharesMemory() bool {
	if s.Machine != nil {
		if _, own := s.Machine.Properties[memoryBackend]; own {
			return false
		}
	}
	return s.virtioFS() >= 0
}

// virtioFS is the index of the first filesystem by virtiofs; -1 when there is none.
func (s *VirtualMachineSpec) virtioFS() int {
	for i := range s.Filesystems {
		if f := &s.Filesystems[i]; f.Driver == FilesystemVirtioFS || f.Driver == "" {
			return i
		}
	}
	return -1
}

// filesystems looks for what sharing folders needs.
func (v *validator) filesystems(s *VirtualMachineSpec) {
	if v.isBroken("spec.memory") || v.isBroken("spec.machine.properties") {
		return
	}
	if s.SharesMemory() && (s.Memory == nil || s.Memory.Size == 0) {
		v.fault(fmt.Sprintf("spec.filesystems[%d]", s.virtioFS()),
			"virtiofs shares the guest's memory with virtiofsd, so its size has to be said", "set spec.memory.size, or use driver: 9p")
	}
}

func resolveFilesystems(all []Filesystem, dir string) {
	for i := range all {
		f := &all[i]
		setDefault(&f.Driver, FilesystemVirtioFS)
		f.Path = absolute(f.Path, dir)
	}
}
