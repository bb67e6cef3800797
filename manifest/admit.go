package manifest

import (
	"cmp"
	"fmt"
	"slices"
)

// defaultMemory is what QEMU gives a machine whose manifest names no memory.
const defaultMemory = Quantity(128 << 20)

// HostFacts are what set-wide admission weighs the set against. A zero fact is
// unknown and is not weighed.
type HostFacts struct {
	MemoryBytes int64
	CPUs        int
}

// claim is something of the host that a machine wants for itself.
type claim struct {
	owner *Object
	path  string
	what  string // the kind of thing, for the message
	value string
}

// Admit checks resolved objects against each other: what each alone cannot
// know. others are machines that still run although nobody declares them, which
// hold their ports, addresses and files as well, and images that are known. Memory and vCPUs beyond the
// host's are warnings. The result is sorted by position.
func Admit(objects, others []*Object, host HostFacts) Errors {
	var found Errors
	declared := map[ObjectKey]*Object{}
	for _, o := range objects {
		if first, ok := declared[o.Key()]; ok {
			found = append(found, duplicateObject(o, first))
			continue
		}
		declared[o.Key()] = o
	}
	var a admission
	for _, o := range others {
		if _, ok := declared[o.Key()]; !ok && (o.VM != nil || o.Image != nil) {
			a.objects = append(a.objects, o)
		}
	}
	a.running = len(a.objects)
	a.objects = append(a.objects, objects...)
	found = append(found, a.macs()...)
	found = append(found, a.forwards()...)
	found = append(found, a.files()...)
	found = append(found, a.snapshots()...)
	found = append(found, a.images()...)
	found = append(found, a.host(host)...)
	found.Sort()
	return found
}

// admission is a set with the machines that run beside it. Those come first, so
// that a conflict with one of them is the fault of what is declared; between
// two of them it is past helping.
type admission struct {
	objects []*Object
	running int
}

// duplicateObject is the fault of a second object of one kind and name.
func duplicateObject(o, first *Object) *Error {
	return &Error{
		Position: o.place("metadata.name"),
		Path:     "metadata.name",
		Msg:      fmt.Sprintf("%s is declared a second time", o.Key()),
		Conflict: []ObjectKey{o.Key()},
		Hint:     fmt.Sprintf("the first is at %s; rename or remove one of them", first.Position),
	}
}

// taken is the fault of a claim that another holds already.
func taken(c, first claim, hint string) *Error {
	where, conflict := "this machine", []ObjectKey{c.owner.Key()}
	if c.owner != first.owner {
		where = first.owner.Key().String()
		conflict = append(conflict, first.owner.Key())
	}
	at := first.owner.place(first.path).String()
	if at == "" {
		at = "running, but declared in no manifest"
	}
	return &Error{
		Position: c.owner.place(c.path),
		Path:     c.path,
		Msg:      fmt.Sprintf("%s %s is taken by %s of %s (%s)", c.what, c.value, first.path, where, at),
		Conflict: conflict,
		Hint:     hint,
	}
}

// macs finds nics with one address. Machines see each other on a bridge,
// and a guest is recognised by its address, so one address is one nic.
func (a admission) macs() Errors {
	var found Errors
	held := map[string]claim{}
	for n, o := range a.objects {
		if o.VM == nil {
			continue
		}
		for i, nic := range o.VM.Spec.NICs {
			if nic.MAC == "" {
				continue
			}
			c := claim{o, fmt.Sprintf("spec.nics[%d].mac", i), "MAC address", nic.MAC}
			first, ok := held[nic.MAC]
			switch {
			case !ok:
				held[nic.MAC] = c
			case n >= a.running:
				found = append(found, taken(c, first, "give one of them another address, or none: maqet then makes one up and keeps it"))
			}
		}
	}
	return found
}

// forwards finds host ports that two forwards want.
func (a admission) forwards() Errors {
	type holder struct {
		forward Forward
		claim   claim
	}
	var found Errors
	held := map[int][]holder{} // by host port
	for n, o := range a.objects {
		for _, f := range forwardsOf(o.VM) {
			c := claim{o, f.path, "host port", fmt.Sprintf("%s %d", f.Proto, f.HostPort)}
			same := held[f.HostPort]
			at := slices.IndexFunc(same, func(h holder) bool { return h.forward.overlaps(f.Forward) })
			switch {
			case at < 0:
				held[f.HostPort] = append(same, holder{f.Forward, c})
			case n >= a.running:
				found = append(found, taken(c, same[at].claim, "forward another port of the host"))
			}
		}
	}
	return found
}

// placedForward is a forward and where it is written.
type placedForward struct {
	Forward
	path string
}

// forwardsOf are the well-formed forwards of a machine.
func forwardsOf(vm *VirtualMachine) []placedForward {
	if vm == nil {
		return nil
	}
	var all []placedForward
	for i, nic := range vm.Spec.NICs {
		if nic.User == nil {
			continue
		}
		for j, text := range nic.User.Forward {
			if f, err := ParseForward(text); err == nil {
				all = append(all, placedForward{f, fmt.Sprintf("spec.nics[%d].user.forward[%d]", i, j)})
			}
		}
	}
	return all
}

// files finds image files that one drive writes while another uses them.
// QEMU's own lock would refuse the second, but only when it starts.
func (a admission) files() Errors {
	type holder struct {
		claim  claim
		writes bool
	}
	var found Errors
	held := map[string]holder{}
	for n, o := range a.objects {
		if o.VM == nil {
			continue
		}
		for i, d := range o.VM.Spec.Disks {
			c, used := fileClaim(o, i)
			if !used {
				continue
			}
			first, ok := held[c.value]
			switch {
			case !ok:
				held[c.value] = holder{c, !d.ReadOnly}
			case n >= a.running && (first.writes || !d.ReadOnly):
				found = append(found, taken(c, first.claim, "a file that a drive can write serves no other; make all of its drives readOnly: true, or copy the file"))
			}
		}
	}
	return found
}

// fileClaim is the file or export that a drive of a machine uses, if it does.
func fileClaim(o *Object, i int) (claim, bool) {
	switch d := &o.VM.Spec.Disks[i]; {
	case d.File != "":
		return claim{o, fmt.Sprintf("spec.disks[%d].file", i), "file", quote(d.File)}, true
	case d.NBD != nil:
		return claim{o, fmt.Sprintf("spec.disks[%d].nbd", i), "export", quote(d.NBD.URI())}, true
	default:
		return claim{}, false
	}
}

// snapshots finds snapshots of machines that do not exist.
func (a admission) snapshots() Errors {
	var names []string
	for _, o := range a.objects {
		if o.VM != nil {
			names = append(names, o.VM.Metadata.Name)
		}
	}
	slices.Sort(names)
	var found Errors
	for _, o := range a.objects {
		if o.Snapshot == nil {
			continue
		}
		target := o.Snapshot.Spec.VirtualMachine
		if _, ok := slices.BinarySearch(names, target); ok {
			continue
		}
		found = append(found, &Error{
			Position: o.place("spec.virtualMachine"),
			Path:     "spec.virtualMachine",
			Msg:      fmt.Sprintf("no virtual machine is named %s", quote(target)),
			Conflict: []ObjectKey{o.Key()},
			Hint:     cmp.Or(didYouMean(target, names), "declare the machine in the same set, or remove the snapshot"),
		})
	}
	return found
}

// host warns when the machines that may run want more than the host has.
func (a admission) host(host HostFacts) Errors {
	var memory, cpus int64
	for _, o := range a.objects {
		if o.VM == nil || o.VM.Spec.PowerState == PowerStopped {
			continue
		}
		size := defaultMemory
		if o.VM.Spec.Memory != nil {
			size = o.VM.Spec.Memory.Size
		}
		memory = addCapped(memory, size.Bytes())
		cpus = addCapped(cpus, int64(o.VM.Spec.CPU.VCPUs()))
	}
	var found Errors
	if host.MemoryBytes > 0 && memory > host.MemoryBytes {
		found = append(found, &Error{
			Path: "spec.memory.size", Warning: true,
			Msg:  fmt.Sprintf("the machines want %s of memory together, the host has %s", roundMi(memory), roundMi(host.MemoryBytes)),
			Hint: "guests that use all of theirs may be killed for lack of memory; lower spec.memory.size or stop some",
		})
	}
	if host.CPUs > 0 && cpus > int64(host.CPUs) {
		found = append(found, &Error{
			Path: "spec.cpu.count", Warning: true,
			Msg:  fmt.Sprintf("the machines have %d vCPUs together, the host has %d", cpus, host.CPUs),
			Hint: "they share the host's and run slower when busy at once",
		})
	}
	return found
}

// addCapped adds without running over.
func addCapped(a, b int64) int64 {
	const most = 1<<63 - 1
	if a > most-b {
		return most
	}
	return a + b
}

// roundMi is a number of bytes in whole MiB, for reading.
func roundMi(n int64) Quantity { return Quantity(n >> 20 << 20) }
