package manifest

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Bounds that hold for every binary; the host's own binary knows narrower ones.
const (
	maxVCPUs        = 4096
	maxHotplugPorts = 128
	memoryStep      = Quantity(1 << 20)
)

var (
	// modelSyntax is that of board and CPU names: no comma or equals sign, which
	// would begin an option of QEMU's.
	modelSyntax = newPattern(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	// driverSyntax is that of device types; a few of them hold commas or plus signs.
	driverSyntax = newPattern(`^[A-Za-z0-9][A-Za-z0-9._,+-]*$`)
	// propertySyntax is that of property names; array items have an index.
	propertySyntax = newPattern(`^[A-Za-z0-9][A-Za-z0-9._-]*(\[[0-9*]+\])?$`)
	// userSyntax is that of the names of users; one that is all digits is none.
	userSyntax     = newPattern(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)
	hostnameSyntax = newPattern(`^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*\.?$`)
)

// ownedMachineProperties are set by maqet from the keys named.
var ownedMachineProperties = map[string]string{
	"type":   "spec.machine.type",
	"accel":  "spec.emulator.accelerators",
	"smp":    "spec.cpu",
	"memory": "spec.memory.size",
	"boot":   "spec.boot.order",
	"kernel": "spec.boot.kernel.image",
	"initrd": "spec.boot.kernel.initrd",
	"append": "spec.boot.kernel.cmdline",
}

func validModel(what string) func(string) error {
	return func(s string) error {
		if modelSyntax.MatchString(s) {
			return nil
		}
		return fmt.Errorf("%s is no %s: use letters, digits, '.', '_' and '-'", quote(s), what)
	}
}

func validDriver(s string) error {
	if driverSyntax.MatchString(s) {
		return nil
	}
	return fmt.Errorf("%s is no device type of QEMU", quote(s))
}

func validProperty(s string) error {
	if propertySyntax.MatchString(s) {
		return nil
	}
	return fmt.Errorf("%s is no name of a property: use letters, digits, '.', '_' and '-'", quote(s))
}

// emulator looks at the binary and its arguments.
func (v *validator) emulator(e *Emulator) {
	if e == nil {
		return
	}
	switch b := e.Binary; {
	case strings.Contains(b, "/") && !filepath.IsAbs(b):
		v.fault("spec.emulator.binary", quote(b)+" is a relative path", "use an absolute path, or a name that is looked up in PATH")
	case strings.HasPrefix(b, "-") || strings.HasSuffix(b, "/"):
		v.fault("spec.emulator.binary", quote(b)+" is no program", "use an absolute path, or a name that is looked up in PATH")
	}
	known := []string{"kvm", "tcg", "xen"}
	for i, a := range e.Accelerators {
		path := fmt.Sprintf("spec.emulator.accelerators[%d]", i)
		switch {
		case a == "":
		case !slices.Contains(known, a):
			v.fault(path, quote(a)+" is no accelerator of a Linux host", cmp.Or(didYouMean(a, known), "use "+quoteAll(known)))
		case slices.Index(e.Accelerators, a) < i:
			v.fault(path, quote(a)+" is listed a second time", "remove it")
		}
	}
	v.runAs(e.RunAs)
	v.extraArgs(e.ExtraArgs)
}

// runAs looks at the name of the user that QEMU runs as. Whether there is one is for
// the host to say.
func (v *validator) runAs(user string) {
	const path = "spec.emulator.runAs"
	switch {
	case user == "":
	case !userSyntax.MatchString(user):
		v.fault(path, quote(user)+" is no name of a user", "use the name, not the number, of a user of this host")
	case user == "root":
		v.fault(path, "QEMU is not to be made root", "leave the key out to run QEMU as maqet's own user, or name a user without rights")
	}
}

// architecture is what the machine's binary emulates, as far as its name tells.
func architecture(e *Emulator, host string) string {
	if e == nil || e.Binary == "" {
		return host
	}
	arch, _ := strings.CutPrefix(filepath.Base(e.Binary), "qemu-system-")
	return arch
}

// board looks at the machine type, its properties, and what needs it.
func (v *validator) board(s *VirtualMachineSpec, arch string) {
	m := s.Machine
	if m == nil {
		m = &Machine{}
	}
	v.check("spec.machine.type", m.Type, validModel("machine type"))
	if a := architecture(s.Emulator, arch); m.Type == "" && (a == "aarch64" || a == "arm") {
		v.fault("spec.machine.type", "required key is missing: QEMU has no default board for "+a, "use virt for example")
	}
	const ports = "spec.machine.hotplugPorts"
	switch pcie := m.IsQ35() || m.Type == "virt" || strings.HasPrefix(m.Type, "virt-"); {
	case m.HotplugPorts < 0 || m.HotplugPorts > maxHotplugPorts:
		v.fault(ports, fmt.Sprintf("%d is out of range", m.HotplugPorts), fmt.Sprintf("use a number from 0 to %d", maxHotplugPorts))
	case m.HotplugPorts > 0 && !pcie:
		v.fault(ports, "needs a board with PCI Express", "use machine.type q35, or remove the key")
	}
	for key := range m.Properties {
		path := joinPath([]string{"spec", "machine", "properties", key})
		root, _, _ := strings.Cut(key, ".")
		if owner, ok := ownedMachineProperties[root]; ok {
			v.fault(path, "is set by maqet", "use "+owner)
			continue
		}
		if key == "" {
			v.fault(path, "a property must have a name", "")
		}
		v.check(path, key, validProperty)
	}
}

// cpu looks at the model and the arithmetic of the topology.
func (v *validator) cpu(c *CPU) {
	if c == nil {
		return
	}
	v.check("spec.cpu.model", c.Model, validModel("CPU model"))
	inRange := v.count("spec.cpu", "count", c.Count)
	inRange = v.count("spec.cpu", "maxCount", c.MaxCount) && inRange
	all, key := c.Count, "spec.cpu.count"
	if c.MaxCount != 0 {
		all, key = c.MaxCount, "spec.cpu.maxCount"
		switch {
		case c.Count == 0:
			v.fault("spec.cpu.maxCount", "says how many vCPUs there can be, but not how many there are", "add spec.cpu.count")
		case inRange && c.Count > c.MaxCount:
			v.fault("spec.cpu.maxCount", fmt.Sprintf("%d is less than spec.cpu.count, which is %d", c.MaxCount, c.Count), "raise it, or lower spec.cpu.count")
		}
	}
	t := c.Topology
	if t == nil {
		return
	}
	inRange = v.count("spec.cpu.topology", "sockets", t.Sockets) && inRange
	inRange = v.count("spec.cpu.topology", "cores", t.Cores) && inRange
	inRange = v.count("spec.cpu.topology", "threads", t.Threads) && inRange
	if !inRange {
		return
	}
	product := t.Product()
	sum := fmt.Sprintf("%d sockets x %d cores x %d threads are %d vCPUs", max(t.Sockets, 1), max(t.Cores, 1), max(t.Threads, 1), product)
	switch {
	case all != 0 && all != product:
		v.fault("spec.cpu.topology", fmt.Sprintf("%s, but %s is %d", sum, key, all), "make them equal, or remove "+key)
	case product > maxVCPUs:
		v.fault("spec.cpu.topology", sum, fmt.Sprintf("a machine has at most %d", maxVCPUs))
	}
}

// count looks at a number of vCPUs or of their groups; absent is fine.
func (v *validator) count(parent, key string, n int) bool {
	if n > maxVCPUs || n < 0 || (n == 0 && v.isWritten(parent, key)) {
		v.fault(parent+"."+key, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("use a number from 1 to %d", maxVCPUs))
		return false
	}
	return true
}

func (v *validator) memory(m *Memory) {
	if m != nil && m.Size%memoryStep != 0 {
		v.fault("spec.memory.size", fmt.Sprintf("%s is not a multiple of 1Mi", m.Size), nearestMultiples(m.Size, memoryStep))
	}
}

// boot looks at whether the order names what exists.
func (v *validator) boot(s *VirtualMachineSpec) {
	if s.Boot == nil {
		return
	}
	var names []string
	for _, d := range s.Disks {
		names = append(names, d.Name)
	}
	for _, n := range s.NICs {
		names = append(names, n.Name)
	}
	unsure := v.isBroken("spec.disks") || v.isBroken("spec.nics")
	for i, name := range s.Boot.Order {
		path := fmt.Sprintf("spec.boot.order[%d]", i)
		switch {
		case name == "":
		case slices.Index(s.Boot.Order, name) < i:
			v.fault(path, quote(name)+" is listed a second time", "remove it")
		case !slices.Contains(names, name) && !unsure:
			v.fault(path, "no disk or nic is named "+quote(name), cmp.Or(didYouMean(name, names), "name one of spec.disks or spec.nics"))
		}
	}
}

func (v *validator) devices(devices []Device) {
	for i, d := range devices {
		v.check(fmt.Sprintf("spec.devices[%d].driver", i), d.Driver, validDriver)
		for key := range d.Properties {
			path := joinPath([]string{"spec", "devices", fmt.Sprintf("[%d]", i), "properties", key})
			switch key {
			case "":
				v.fault(path, "a property must have a name", "")
			case "id":
				v.fault(path, "is set by maqet", "the name of the device is its id")
			case "driver":
				v.fault(path, "is set by maqet", "use the key driver of the device")
			default:
				v.check(path, key, validProperty)
			}
		}
	}
}

func (v *validator) shutdown(vm *VirtualMachineSpec) {
	s := vm.Shutdown
	if s == nil {
		return
	}
	if s.Methods != nil && len(s.Methods) == 0 {
		v.fault("spec.shutdown.methods", "must not be empty", "remove the key for ACPI")
	}
	for i, m := range s.Methods {
		path := fmt.Sprintf("spec.shutdown.methods[%d]", i)
		if m != "" && slices.Index(s.Methods, m) < i {
			v.fault(path, quote(string(m))+" is listed a second time", "remove it")
		}
		if m == ShutdownGuestAgent && vm.GuestAgent == nil && !v.isBroken("spec.guestAgent") {
			v.fault(path, "needs the agent's port", "add spec.guestAgent: {}")
		}
	}
}

// readiness looks at whether what is waited for can come.
func (v *validator) readiness(vm *VirtualMachine) {
	r := vm.Spec.Readiness
	if r == nil {
		return
	}
	probes := 0
	for _, given := range []bool{r.Serial != nil, r.TCP != nil, r.GuestAgent != nil} {
		if given {
			probes++
		}
	}
	if probes != 1 {
		v.fault("spec.readiness", "needs exactly one of serial, tcp and guestAgent", "remove spec.readiness to count as Ready when QEMU runs")
	}
	if r.GuestAgent != nil && vm.Spec.GuestAgent == nil && !v.isBroken("spec.guestAgent") {
		v.fault("spec.readiness.guestAgent", "needs the agent's port", "add spec.guestAgent: {}")
	}
	if r.Serial != nil {
		v.serialReadiness(r.Serial, vm.Spec.Serial)
	}
	if r.TCP != nil {
		v.tcpReadiness(r.TCP, vm)
	}
}

func (v *validator) serialReadiness(r *SerialReadiness, serial *Serial) {
	if _, err := regexp.Compile(r.Match); err != nil {
		v.fault("spec.readiness.serial.match", "is no regular expression: "+err.Error(), "see https://pkg.go.dev/regexp/syntax")
	}
	if (serial == nil || !serial.Log) && !v.isBroken("spec.serial") {
		v.fault("spec.readiness.serial", "needs the serial log, where the text is looked for", "add spec.serial: {log: true}")
	}
}

func (v *validator) tcpReadiness(r *TCPReadiness, vm *VirtualMachine) {
	const path = "spec.readiness.tcp.port"
	if r.Port < 1 || r.Port > 65535 {
		v.fault(path, fmt.Sprintf("%d is no port", r.Port), "use a number from 1 to 65535")
		return
	}
	if r.Host != "" {
		if _, err := netip.ParseAddr(r.Host); err != nil && (!hostnameSyntax.MatchString(r.Host) || len(r.Host) > 253) {
			v.fault("spec.readiness.tcp.host", quote(r.Host)+" is no address and no host name", "use the guest's own address, without a port")
		}
		return
	}
	reached := slices.ContainsFunc(forwardsOf(vm), func(f placedForward) bool { return f.Proto == "tcp" && f.GuestPort == r.Port })
	if !reached && !v.isBroken("spec.nics") {
		v.fault(path, fmt.Sprintf("no tcp forward of this machine leads to port %d", r.Port),
			fmt.Sprintf("add one such as \"tcp:127.0.0.1:%d:%d\" to a user nic, or give spec.readiness.tcp.host", 20000+r.Port%10000, r.Port))
	}
}
