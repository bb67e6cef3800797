package qemu

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/maqet/maqet/manifest"
)

// sandbox confines QEMU: no obsolete system calls, no way to more rights, no
// child processes, no change of scheduling. What needs those is done by maqet
// before the start and handed over as a descriptor.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// process renders what a supervisor needs of any QEMU.
func (r *renderer) process() {
	name := r.VM.Metadata.Name
	if r.Identity.UID == "" {
		r.fail("", "the machine's identity holds no uuid", "apply the machine again, which completes its identity", nil)
	}
	r.add("spec.emulator.binary", r.Host.Binary)
	r.add("metadata.name", "-name", "guest="+doubleCommas(name))
	r.add("", "-uuid", r.Identity.UID)
	r.add("", "-no-user-config")
	if e := r.VM.Spec.Emulator; e == nil || !e.DefaultDevices {
		r.add("", "-nodefaults")
	}
	r.add("", "-display", "none")
	r.add("", "-sandbox", sandbox)
	r.add("metadata.name", "-pidfile", r.Layout.PIDFile(name))
	if r.Paused {
		r.add("", "-S")
	}
}

// board renders machine, accelerators, CPU and memory. What the manifest does
// not name is not passed.
func (r *renderer) board() {
	r.machine()
	s := r.VM.Spec
	if s.Emulator != nil {
		for i, a := range s.Emulator.Accelerators {
			r.add(fmt.Sprintf("spec.emulator.accelerators[%d]", i), "-accel", doubleCommas(a))
		}
	}
	r.cpu()
	if s.Memory != nil {
		r.add("spec.memory.size", "-m", "size="+exactSize(s.Memory.Size))
	}
	r.memoryObject()
}

// propertyKey is how QEMU names properties. Anything else in a key could end it
// and begin another.
var propertyKey = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_.]*$`)

// machine renders the versioned board and its properties.
func (r *renderer) machine() {
	board := r.Identity.Machine.Type
	if board == "" {
		r.fail("spec.machine.type", "the machine's identity holds no machine type", "apply the machine again, which completes its identity", nil)
	}
	if _, ok := r.Host.Machines[board]; !ok && len(r.Host.Machines) > 0 {
		r.fail("spec.machine.type",
			fmt.Sprintf("this machine was made with board %s, which %s %s does not have", board, r.Host.Binary, r.Host.Version),
			"use the QEMU it was made with, or name a board of this one in spec.machine.type; the guest then sees new hardware", nil)
	}
	var text strings.Builder
	text.WriteString(doubleCommas(board))
	if m := r.VM.Spec.Machine; m != nil {
		for _, key := range slices.Sorted(maps.Keys(m.Properties)) {
			path := "spec.machine.properties." + key
			if !propertyKey.MatchString(key) || key == "type" {
				r.fail(path, fmt.Sprintf("%q is no machine property", key), "use letters, digits, '-', '_' and '.'; the board itself is spec.machine.type", nil)
			}
			text.WriteString("," + key + "=" + doubleCommas(m.Properties[key].String()))
		}
	}
	text.WriteString(r.flash())
	text.WriteString(r.sharedMemory())
	r.add("spec.machine", "-machine", text.String())
}

// cpu renders model, count and topology.
func (r *renderer) cpu() {
	c := r.VM.Spec.CPU
	if c == nil {
		return
	}
	if c.Model != "" {
		// QEMU splits this option at every comma; doubling does not help here.
		if strings.Contains(c.Model, ",") {
			r.fail("spec.cpu.model", fmt.Sprintf("%q holds a comma, which no CPU model's name does", c.Model), "name a model only", nil)
		}
		r.add("spec.cpu.model", "-cpu", c.Model)
	}
	if c.Count == 0 && c.Topology == nil {
		return
	}
	text := "cpus=" + strconv.Itoa(c.VCPUs())
	if c.MaxCount > 0 {
		text += ",maxcpus=" + strconv.Itoa(c.MaxCount)
	}
	if t := c.Topology; t != nil {
		text += fmt.Sprintf(",sockets=%d,cores=%d,threads=%d", max(t.Sockets, 1), max(t.Cores, 1), max(t.Threads, 1))
	}
	r.add("spec.cpu", "-smp", text)
}

// exactSize is a number of bytes in the largest unit that divides it, so that
// QEMU, which takes a bare number as MiB, rounds nothing.
func exactSize(q manifest.Quantity) string {
	n := q.Bytes()
	switch {
	case n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "M"
	case n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + "K"
	default:
		return strconv.FormatInt(n, 10) + "B"
	}
}

// monitors renders the two QMP sockets: one for whoever stays connected, one for
// short visits, since a socket serves one client at a time.
func (r *renderer) monitors() {
	for _, m := range []struct {
		id   string
		kind FileKind
	}{{"maqet.qmp", QMPListener}, {"maqet.cli", CLIListener}} {
		r.add("", "-chardev", listener(m.id, r.inherit(File{Kind: m.kind})))
		r.add("", "-mon", "chardev="+m.id+",mode=control")
	}
}

// listener is a character device over a listening socket that QEMU inherits.
func listener(id string, fd int) string {
	return fmt.Sprintf("socket,id=%s,fd=%d,server=on,wait=off", id, fd)
}

// serial renders the first serial line.
func (r *renderer) serial() {
	s := r.VM.Spec.Serial
	if s == nil {
		return
	}
	text := listener("maqet.serial", r.inherit(File{Kind: SerialListener}))
	if s.Log {
		text += ",logfile=" + doubleCommas(r.Layout.SerialLog(r.VM.Metadata.Name)) + ",logappend=on"
	}
	r.add("spec.serial", "-chardev", text)
	r.add("spec.serial", "-serial", "chardev:maqet.serial")
}

// kernel renders a directly loaded kernel. QEMU takes these words as they are.
func (r *renderer) kernel() {
	if r.VM.Spec.Boot == nil || r.VM.Spec.Boot.Kernel == nil {
		return
	}
	k := r.VM.Spec.Boot.Kernel
	r.add("spec.boot.kernel.image", "-kernel", k.Image)
	if k.Initrd != "" {
		r.add("spec.boot.kernel.initrd", "-initrd", k.Initrd)
	}
	if k.Cmdline != "" {
		r.add("spec.boot.kernel.cmdline", "-append", k.Cmdline)
	}
}
