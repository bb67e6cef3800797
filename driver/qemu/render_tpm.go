package qemu

import (
	"fmt"
	"strconv"

	"github.com/maqet/maqet/driver"
)

// The module's parts, besides the device (driver.TPMDevice).
const (
	tpmChardev = driver.TPMDevice + ".control"
	tpmBackend = driver.TPMDevice + ".backend"
)

// tpmDriver is the device that is a TPM on a board; empty where there is none.
func tpmDriver(board string) string {
	switch {
	case hasISA(board):
		return "tpm-tis"
	case driver.BusFamilyOf(board) == driver.FamilyPCIe: // virt
		return "tpm-tis-device"
	default:
		return ""
	}
}

// tpm renders the module, and the descriptor by which QEMU talks to swtpm.
func (r *renderer) tpm() {
	if r.VM.Spec.TPM == nil {
		return
	}
	const path = "spec.tpm"
	device := tpmDriver(r.Identity.Machine.Type)
	if device == "" {
		r.fail(path, fmt.Sprintf("board %s takes no TPM", r.Identity.Machine.Type), tpmHint, nil)
		return
	}
	fd := r.inherit(File{Kind: TPMControl})
	r.add(path, "-chardev", "socket,id="+tpmChardev+",fd="+strconv.Itoa(fd), "-tpmdev", "emulator,id="+tpmBackend+",chardev="+tpmChardev)
	r.addJSON(path, "-device", object{{"driver", device}, {"id", driver.TPMDevice}, {"tpmdev", tpmBackend}})
}

// tpmHint says which boards take a TPM.
const tpmHint = "use machine.type q35, pc or virt"

// checkTPM checks that board, binary and host have what a TPM needs.
func (c *check) checkTPM() {
	if c.vm.Spec.TPM == nil {
		return
	}
	const path = "spec.tpm"
	switch device := tpmDriver(c.board.Name); {
	case device == "":
		c.find(path, fmt.Sprintf("board %s takes no TPM", c.board.Name), tpmHint)
	case !c.host.Devices[device]:
		c.find(path, fmt.Sprintf("%s was built without %s", c.host.Binary, device), "use another QEMU")
	}
	if _, err := findSWTPM(c.vm); err != nil {
		c.find(path, err.Msg, err.Hint)
	}
}
