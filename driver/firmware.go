package driver

import "github.com/maqet/maqet/manifest"

// FirmwareKind names the firmwares that a machine may have, each with an NVRAM of
// its own.
type FirmwareKind string

// The kinds.
const (
	// FirmwareUEFI is UEFI without Secure Boot.
	FirmwareUEFI FirmwareKind = "uefi"
	// FirmwareSecureBoot is UEFI that runs signed code only.
	FirmwareSecureBoot FirmwareKind = "secureboot"
)

// FirmwareKindOf is the kind that a spec asks for; empty for the board's own BIOS.
func FirmwareKindOf(s *manifest.VirtualMachineSpec) FirmwareKind {
	switch {
	case s.Firmware == nil || !s.Firmware.UEFI:
		return ""
	case s.Firmware.SecureBoot:
		return FirmwareSecureBoot
	default:
		return FirmwareUEFI
	}
}

// NVRAMNode is the name of the block node, and in snapshots of the disk, that the
// NVRAM of a kind is.
func (k FirmwareKind) NVRAMNode() string { return "maqet.nvram." + string(k) }

// Firmware is a firmware that was found on the host once, and is kept: an NVRAM fits
// the code that it was made for.
type Firmware struct {
	// Code is the file of the code, CodeFormat its format.
	Code       string `json:"code"`
	CodeFormat string `json:"codeFormat"`
	// Template is what a new NVRAM is a copy of.
	Template       string `json:"template"`
	TemplateFormat string `json:"templateFormat"`
	// SMM tells that the code needs the board's system management mode.
	SMM bool `json:"smm,omitempty"`
}
