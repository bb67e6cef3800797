package driver

import "time"

// IdentityVersion is the format of identity.json that this maqet writes.
const IdentityVersion = 1

// Identity is what a guest recognises itself by. It lives with the disks, is
// written before first use, and goes only with the disks.
type Identity struct {
	// Version is the format of the file.
	Version int `json:"version"`
	// UID is the machine's uuid, which QEMU gets as -uuid.
	UID string `json:"uid"`
	// Created is when the identity was made.
	Created time.Time `json:"created"`
	// Machine is the resolved machine type.
	Machine ResolvedMachine `json:"machine"`
	// MACs are the generated addresses by nic name. A nic whose manifest names
	// an address has no entry.
	MACs map[string]string `json:"macs,omitempty"`
	// Images are the digests of the images that disks were made of, by disk name.
	Images map[string]string `json:"images,omitempty"`
	// Firmware is what was found for the machine once, by its kind.
	Firmware map[FirmwareKind]Firmware `json:"firmware,omitempty"`
	// Slots are where devices sit, by device name. Slots are never shifted.
	Slots map[string]Slot `json:"slots,omitempty"`
}

// The ids of what maqet adds for the guest's agent. Names with a dot are no names of
// a manifest.
const (
	// AgentController is the virtio-serial controller, which has a slot of that name.
	AgentController = "maqet.vserial"
	// AgentPort is the port on it.
	AgentPort = "maqet.agent"
)

// ResolvedMachine remembers which versioned machine type an alias stood for.
type ResolvedMachine struct {
	// Wanted is what the manifest said; empty stands for QEMU's default.
	Wanted string `json:"wanted"`
	// Binary is the emulator's name without its folder, since boards differ by architecture.
	Binary string `json:"binary"`
	// Type is the versioned type, such as pc-q35-7.2.
	Type string `json:"type"`
}

// SlotKind is the kind of place a device sits in.
type SlotKind string

// The kinds of slots.
const (
	// SlotPort is a PCIe root port; Index counts ports from 0.
	SlotPort SlotKind = "port"
	// SlotPCI is a device number on pci.0; Index is that number.
	SlotPCI SlotKind = "pci"
	// SlotSATA is a port of the q35 board's own AHCI controller, 0 to 5.
	SlotSATA SlotKind = "sata"
	// SlotSCSI is a target of the machine's virtio-scsi controller, 0 to 255.
	SlotSCSI SlotKind = "scsi"
	// SlotUSB is a port of the machine's USB controller; Index counts from 0.
	SlotUSB SlotKind = "usb"
)

// Slot is one place.
type Slot struct {
	Kind  SlotKind `json:"kind"`
	Index int      `json:"index"`
}
