package manifest

import (
	"fmt"
	"slices"
)

// Firmware is what the machine begins with before a boot loader or a kernel.
type Firmware struct {
	// UEFI uses the host's UEFI firmware for the board, with an NVRAM of the machine's
	// own. Absent: the board's BIOS.
	UEFI bool `json:"uefi,omitempty"`
	// SecureBoot lets only signed code run; needs uefi, and on x86 the board q35.
	SecureBoot bool `json:"secureBoot,omitempty"`
}

// firmware looks at what UEFI needs, and at what would override it.
func (v *validator) firmware(s *VirtualMachineSpec) {
	f := s.Firmware
	if f == nil {
		return
	}
	if f.SecureBoot && !f.UEFI {
		v.fault("spec.firmware.secureBoot", "needs UEFI", "add uefi: true")
	}
	if !f.UEFI {
		return
	}
	if e := s.Emulator; e != nil {
		for i, arg := range e.ExtraArgs {
			if name, ok := optionName(arg); ok && slices.Contains([]string{"bios", "pflash"}, name) {
				v.fault(fmt.Sprintf("spec.emulator.extraArgs[%d]", i), quote(arg)+" is another firmware than spec.firmware.uefi", "remove one of them")
			}
		}
	}
	if s.Machine == nil {
		return
	}
	for _, key := range []string{"pflash0", "pflash1", "firmware"} {
		if _, ok := s.Machine.Properties[key]; ok {
			v.fault("spec.machine.properties."+key, "is another firmware than spec.firmware.uefi", "remove one of them")
		}
	}
	if smm, ok := s.Machine.Properties["smm"]; ok && f.SecureBoot && smm.String() != "on" {
		v.fault("spec.machine.properties.smm", "Secure Boot needs the board's system management mode", "remove the key")
	}
}
