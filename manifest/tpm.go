package manifest

import "fmt"

// TPM is a trusted platform module of version 2.0, emulated by swtpm. Its state is
// kept with the machine's disks.
type TPM struct{}

// tpm looks for what would override the module.
func (v *validator) tpm(s *VirtualMachineSpec) {
	if s.TPM == nil || s.Emulator == nil {
		return
	}
	for i, arg := range s.Emulator.ExtraArgs {
		if name, ok := optionName(arg); ok && name == "tpmdev" {
			v.fault(fmt.Sprintf("spec.emulator.extraArgs[%d]", i), quote(arg)+" is another TPM than spec.tpm", "remove one of them")
		}
	}
}
