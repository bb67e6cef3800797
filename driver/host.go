package driver

import "fmt"

// Version is a QEMU version.
type Version struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
	Micro int `json:"micro"`
}

// String is major.minor.micro.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// AtLeast tells whether v is the given version or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Host is what one QEMU binary on this host can do, as a scratch process of it said.
type Host struct {
	// Binary is the absolute path, symlinks resolved.
	Binary string `json:"binary"`
	// Version is the binary's own.
	Version Version `json:"version"`
	// Arch is QEMU's name of the guest architecture, such as x86_64.
	Arch string `json:"arch"`
	// Machines are the machine types by name and by alias.
	Machines map[string]MachineType `json:"machines"`
	// DefaultMachine is the name of the default type; empty when there is none.
	DefaultMachine string `json:"defaultMachine"`
	// CPUModels are the names -cpu accepts.
	CPUModels []string `json:"cpuModels"`
	// PCIDevices are the drivers that are PCI devices.
	PCIDevices map[string]bool `json:"pciDevices"`
	// Devices are all drivers that -device accepts.
	Devices map[string]bool `json:"devices"`
	// Accelerators are those compiled in; whether one is usable now is asked afresh.
	Accelerators []string `json:"accelerators"`
}

// MachineType is one board of a binary.
type MachineType struct {
	Name   string `json:"name"`
	Alias  string `json:"alias,omitempty"`
	MaxCPU int    `json:"maxCPU,omitempty"`
	// DefaultCPU is the CPU model's type name; empty where the board has none.
	DefaultCPU string `json:"defaultCPU,omitempty"`
}

// BusFamily is how a board connects devices.
type BusFamily string

// The families of boards.
const (
	// FamilyPCIe boards (q35, virt) get one root port for each PCI device.
	FamilyPCIe BusFamily = "pcie"
	// FamilyPCI boards (pc) have pci.0 with 32 device numbers.
	FamilyPCI BusFamily = "pci"
	// FamilyNone boards have no PCI bus that maqet knows.
	FamilyNone BusFamily = "none"
)
