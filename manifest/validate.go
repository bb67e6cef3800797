package manifest

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// validator looks at one well-formed object for what its form does not show:
// names, ranges, and keys that need or exclude each other.
type validator struct {
	file   string
	root   *yaml.Node
	broken brokenPaths
	faults Errors
}

// fault notes what is wrong at a path, unless it only follows from a fault that
// is known already.
func (v *validator) fault(path, msg, hint string) {
	if v.broken.touches(path) {
		return
	}
	at := locate(v.root, path)
	v.faults = append(v.faults, &Error{Position: Position{v.file, at.Line, at.Column}, Path: path, Msg: msg, Hint: hint})
}

// check notes err at a path when there is one. Empty text is left alone: the
// walk has spoken of it already.
func (v *validator) check(path, text string, valid func(string) error) bool {
	if text == "" {
		return false
	}
	if err := valid(text); err != nil {
		v.fault(path, err.Error(), "")
		return false
	}
	return true
}

// isWritten is true when the manifest itself has the key.
func (v *validator) isWritten(parent, key string) bool {
	return lookup(locate(v.root, parent), key) != nil
}

// isBroken is true when something at or below path did not fit, so that nothing
// can be concluded from it.
func (v *validator) isBroken(path string) bool {
	for _, p := range v.broken {
		if within(p, path) || within(path, p) {
			return true
		}
	}
	return false
}

// metadata looks at the name, labels and annotations.
func (v *validator) metadata(m Metadata, validName func(string) error) {
	v.check("metadata.name", m.Name, validName)
	for key, value := range m.Labels {
		path := joinPath([]string{"metadata", "labels", key})
		if v.labelKey(path, key) {
			v.check(path, value, validLabelValue)
		}
	}
	total := 0
	for key, value := range m.Annotations {
		v.labelKey(joinPath([]string{"metadata", "annotations", key}), key)
		total += len(key) + len(value)
	}
	if total > maxAnnotations {
		v.fault("metadata.annotations", fmt.Sprintf("hold %d bytes; %d are allowed", total, maxAnnotations), "keep large notes in a file of their own")
	}
}

func (v *validator) labelKey(path, key string) bool {
	if err := validLabelKey(key); err != nil {
		v.fault(path, err.Error(), "")
		return false
	}
	return true
}

// maxAnnotations is how many bytes all annotations of an object may have, as in
// Kubernetes.
const maxAnnotations = 256 << 10

// snapshot looks at a Snapshot.
func (v *validator) snapshot(s *Snapshot) {
	v.metadata(s.Metadata, ValidSnapshotName)
	v.check("spec.virtualMachine", s.Spec.VirtualMachine, ValidMachineName)
}

// machine looks at a VirtualMachine on a host of the given architecture.
func (v *validator) machine(vm *VirtualMachine, arch string) {
	s := &vm.Spec
	v.metadata(vm.Metadata, ValidMachineName)
	v.emulator(s.Emulator)
	v.board(s, arch)
	v.firmware(s)
	v.tpm(s)
	v.cpu(s.CPU)
	v.memory(s.Memory)
	v.deviceNames(s)
	v.boot(s)
	v.disks(s)
	v.nics(s.NICs)
	v.cloudInit(s.CloudInit)
	v.devices(s.Devices)
	v.shutdown(s)
	v.readiness(vm)
	v.snapshots(s.Snapshots)
	v.backup(s.Backup)
}

// deviceNames looks at the names of disks, nics and devices, which share one
// space: they are ids in QEMU.
func (v *validator) deviceNames(s *VirtualMachineSpec) {
	first := map[string]string{}
	name := func(list string, i int, name string) {
		path := fmt.Sprintf("spec.%s[%d].name", list, i)
		if !v.check(path, name, ValidDeviceName) {
			return
		}
		if other, ok := first[name]; ok {
			v.fault(path, fmt.Sprintf("the name %q is taken by %s", name, other), "disks, nics and devices of a machine need different names")
			return
		}
		first[name] = path
	}
	for i, d := range s.Disks {
		name("disks", i, d.Name)
	}
	for i, n := range s.NICs {
		name("nics", i, n.Name)
	}
	for i, d := range s.Devices {
		name("devices", i, d.Name)
	}
}
