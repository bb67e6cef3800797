package qemu

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/manifest"
)

// Finding is one thing in a manifest that this host cannot do.
type Finding struct {
	// Path is the manifest path, such as spec.machine.type.
	Path string
	// Msg says what is wrong, Hint what to do.
	Msg, Hint string
}

// check gathers findings about one machine.
type check struct {
	vm    *manifest.VirtualMachine
	host  driver.Host
	board driver.MachineType
	// account is the user whose rights count; nil for maqet's own.
	account *account
	// files looks at what the manifest names; nil waits for as long as that takes.
	files    *slowfs.Files
	findings []Finding
}

// Check holds a resolved machine against this host, and finds everything that
// would make a start fail for reasons that can be seen before: the binary, the
// board, the CPU model, the devices, the accelerators, the files. An error means
// that checking itself failed.
func (p *Prober) Check(ctx context.Context, vm *manifest.VirtualMachine) (driver.Host, []Finding, error) {
	binary := ""
	if vm.Spec.Emulator != nil {
		binary = vm.Spec.Emulator.Binary
	}
	host, err := p.Host(ctx, binary)
	var broken *BinaryError
	switch {
	case errors.As(err, &broken):
		return host, []Finding{{"spec.emulator.binary", broken.Binary + " " + broken.message(), broken.Hint}}, nil
	case err != nil:
		return host, nil, err
	}
	c := &check{vm: vm, host: host, files: p.files}
	if c.checkMachine() {
		c.checkCPU()
		c.checkDisks()
		c.checkNICs()
		c.checkDevices()
		c.checkSeed()
		c.checkWatchdog()
		c.checkTPM()
		if err := c.checkFilesystems(ctx, p); err != nil {
			return host, nil, err
		}
		if err := c.checkFirmware(p); err != nil {
			return host, nil, err
		}
		c.checkGuestAgent()
	}
	if err := c.checkAccelerators(ctx, p); err != nil {
		return host, nil, err
	}
	c.checkAccount()
	c.checkFiles(ctx)
	return host, c.findings, nil
}

// checkAccount finds a user that QEMU cannot run as.
func (c *check) checkAccount() {
	account, err := accountOf(c.vm)
	if problem, ok := errors.AsType[*AccountError](err); ok {
		c.find("spec.emulator.runAs", fmt.Sprintf("%q: %v", problem.User, problem.Err), problem.Hint)
	}
	c.account = account
}

func (c *check) find(path, msg, hint string) {
	c.findings = append(c.findings, Finding{path, msg, hint})
}

// checkMachine finds the board. Without one nothing that depends on it is checked.
func (c *check) checkMachine() bool {
	wanted := c.host.DefaultMachine
	if m := c.vm.Spec.Machine; m != nil && m.Type != "" {
		wanted = m.Type
	}
	const path = "spec.machine.type"
	if wanted == "" {
		c.find(path, fmt.Sprintf("%s has no default machine type", c.host.Binary), "name one, such as virt")
		return false
	}
	board, ok := c.host.Machines[wanted]
	if !ok {
		c.find(path, fmt.Sprintf("%s %s has no machine type %q", c.host.Binary, c.host.Version, wanted),
			suggest(wanted, slices.Sorted(maps.Keys(c.host.Machines)), c.host.Binary+" -machine help lists them"))
		return false
	}
	c.board = board
	if m := c.vm.Spec.Machine; m != nil && m.HotplugPorts > 0 && c.family() != driver.FamilyPCIe {
		c.find("spec.machine.hotplugPorts", fmt.Sprintf("board %s has no PCI Express ports", board.Name), "use machine.type q35 or virt, or leave the key out")
	}
	return true
}

func (c *check) family() driver.BusFamily { return driver.BusFamilyOf(c.board.Name) }

// checkCPU checks model and count. A QEMU that cannot list its models is not
// asked for them.
func (c *check) checkCPU() {
	cpu := c.vm.Spec.CPU
	if cpu == nil {
		return
	}
	if cpu.Model != "" && len(c.host.CPUModels) > 0 && !slices.Contains(c.host.CPUModels, cpu.Model) {
		c.find("spec.cpu.model", fmt.Sprintf("%s has no CPU model %q", c.host.Binary, cpu.Model),
			suggest(cpu.Model, c.host.CPUModels, c.host.Binary+" -cpu help lists them"))
	}
	if n := cpu.MaxCount; c.board.MaxCPU > 0 && n > c.board.MaxCPU {
		c.find("spec.cpu.maxCount", fmt.Sprintf("%d vCPUs are more than the %d that board %s can have", n, c.board.MaxCPU, c.board.Name), "lower it, or use another machine.type")
	} else if n := cpu.VCPUs(); c.board.MaxCPU > 0 && n > c.board.MaxCPU {
		c.find("spec.cpu.count", fmt.Sprintf("%d vCPUs are more than the %d that board %s can have", n, c.board.MaxCPU, c.board.Name), "lower the count, or use another machine.type")
	}
}

// checkDisks checks that the board has what the drives are attached to.
func (c *check) checkDisks() {
	units := map[manifest.Bus]int{}
	q35 := (&manifest.Machine{Type: c.board.Name}).IsQ35()
	for i, d := range c.vm.Spec.Disks {
		path := fmt.Sprintf("spec.disks[%d]", i)
		units[d.Bus]++
		switch {
		case d.Bus == manifest.BusSATA && !q35:
			c.find(path+".bus", fmt.Sprintf("board %s has no SATA controller", c.board.Name), sataHint)
			continue
		case d.Bus == manifest.BusSATA && units[d.Bus] > driver.SATAPorts:
			c.find(path+".bus", fmt.Sprintf("%q is sata drive number %d", d.Name, units[d.Bus]), fullHint(driver.SlotSATA))
			continue
		case d.Bus != manifest.BusSATA && c.family() == driver.FamilyNone:
			c.find(path, noPCIMessage(diskDriver(d), c.board.Name), noPCIHint)
			continue
		}
		for _, name := range diskDrivers(d) {
			if !c.host.Devices[name] {
				c.find(path+".bus", fmt.Sprintf("%s was built without %s", c.host.Binary, name), "use another bus, or another QEMU")
			}
		}
	}
}

// diskDrivers are all the devices that a drive needs.
func diskDrivers(d manifest.Disk) []string {
	names := []string{diskDriver(d)}
	for _, c := range controllers(&manifest.VirtualMachine{Spec: manifest.VirtualMachineSpec{Disks: []manifest.Disk{d}}}) {
		names = append(names, c.driver)
	}
	if d.Bus == manifest.BusUSB {
		names = append(names, "usb-bot")
	}
	return names
}

// checkNICs checks the models of network cards.
func (c *check) checkNICs() {
	for i, n := range c.vm.Spec.NICs {
		path := fmt.Sprintf("spec.nics[%d].model", i)
		switch {
		case !c.host.Devices[n.Model]:
			c.find(path, fmt.Sprintf("%s has no network card %q", c.host.Binary, n.Model), c.driverHint(n.Model))
		case c.host.PCIDevices[n.Model] && c.family() == driver.FamilyNone:
			c.find(path, noPCIMessage(n.Model, c.board.Name), noPCIHint)
		}
		if n.Bridge != nil {
			c.checkBridge(fmt.Sprintf("spec.nics[%d].bridge.name", i), n.Bridge.Name)
		}
	}
}

// interfacesDir is where the kernel shows network interfaces; a bridge has a
// folder "bridge" below its own.
const interfacesDir = "/sys/class/net"

// checkBridge finds a bridge that is none.
func (c *check) checkBridge(path, name string) {
	create := fmt.Sprintf("create the bridge (ip link add %s type bridge; ip link set %s up), or name another one", name, name)
	dir := filepath.Join(interfacesDir, filepath.Base(name))
	if _, err := os.Stat(dir); err != nil {
		c.find(path, fmt.Sprintf("this host has no bridge %q", name), create)
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "bridge")); err != nil {
		c.find(path, fmt.Sprintf("%q is a network interface of this host, but no bridge", name), "name a bridge that it is a port of")
	}
}

// checkDevices checks the drivers of further devices.
func (c *check) checkDevices() {
	for i, d := range c.vm.Spec.Devices {
		path := fmt.Sprintf("spec.devices[%d].driver", i)
		switch {
		case !c.host.Devices[d.Driver]:
			c.find(path, fmt.Sprintf("%s has no device %q", c.host.Binary, d.Driver), c.driverHint(d.Driver))
		case needsSlot(d, c.host) && c.family() == driver.FamilyNone:
			c.find(path, noPCIMessage(d.Driver, c.board.Name), noPCIHint)
		}
	}
}

// checkGuestAgent checks that the board has a place for the agent's port.
func (c *check) checkGuestAgent() {
	const path = "spec.guestAgent"
	switch {
	case c.vm.Spec.GuestAgent == nil:
	case c.family() == driver.FamilyNone:
		c.find(path, noPCIMessage(agentDriver, c.board.Name), noPCIHint)
	case !c.host.Devices[agentDriver]:
		c.find(path, fmt.Sprintf("%s was built without %s", c.host.Binary, agentDriver), "use another QEMU")
	}
}

// driverHint names the driver that was probably meant. QEMU's short names, such
// as virtio-rng, are no types of their own, and what they stand for depends on the board.
func (c *check) driverHint(name string) string {
	if c.host.Devices[name+"-pci"] {
		return fmt.Sprintf("did you mean %q?", name+"-pci")
	}
	return suggest(name, slices.Sorted(maps.Keys(c.host.Devices)), c.host.Binary+" -device help lists them; some come in packages of their own")
}

// checkAccelerators finds out whether one of the accelerators initialises. QEMU
// itself goes on to the next one until one does, so one is enough.
func (c *check) checkAccelerators(ctx context.Context, p *Prober) error {
	if c.vm.Spec.Emulator == nil {
		return nil
	}
	var problems []Finding
	usable := false
	for i, name := range c.vm.Spec.Emulator.Accelerators {
		path := fmt.Sprintf("spec.emulator.accelerators[%d]", i)
		if !slices.Contains(accelNames(), name) && !slices.Contains(c.host.Accelerators, name) {
			c.find(path, fmt.Sprintf("QEMU has no accelerator %q", name), accelHint(c.host, name))
			continue
		}
		if usable {
			continue
		}
		err := p.Accelerator(ctx, c.host, name)
		var problem *AccelProblem
		switch {
		case err == nil:
			usable = true
		case errors.As(err, &problem):
			problems = append(problems, Finding{path, problem.Msg, problem.Hint})
		default:
			return err
		}
	}
	if !usable {
		c.findings = append(c.findings, problems...)
	}
	return nil
}
