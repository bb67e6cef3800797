package qemu

import (
	"fmt"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// watchdog renders the watchdog and what happens when it runs out.
func (r *renderer) watchdog() {
	w := r.VM.Spec.Watchdog
	if w == nil {
		return
	}
	var slot driver.Slot
	if w.Model == manifest.WatchdogI6300ESB {
		slot = r.pciSeat("spec.watchdog.model", driver.WatchdogDevice, string(w.Model))
	}
	r.addJSON("spec.watchdog.model", "-device", append(object{{"driver", string(w.Model)}, {"id", driver.WatchdogDevice}}, seat(slot)...))
	r.add("spec.watchdog.action", "-action", "watchdog="+string(w.Action))
}

// checkWatchdog checks that board and binary have what the watchdog needs.
func (c *check) checkWatchdog() {
	w := c.vm.Spec.Watchdog
	if w == nil {
		return
	}
	const path = "spec.watchdog.model"
	switch {
	case !c.host.Devices[string(w.Model)]:
		c.find(path, fmt.Sprintf("%s has no device %q", c.host.Binary, w.Model), "use the other model, or another QEMU")
	case w.Model == manifest.WatchdogI6300ESB && c.family() == driver.FamilyNone:
		c.find(path, noPCIMessage(string(w.Model), c.board.Name), noPCIHint)
	case w.Model == manifest.WatchdogIB700 && !hasISA(c.board.Name):
		c.find(path, fmt.Sprintf("ib700 is an ISA device, and board %s has no ISA bus", c.board.Name), "use model i6300esb, or machine.type q35 or pc")
	}
}

// hasISA tells whether a board is a PC.
func hasISA(board string) bool { return strings.HasPrefix(board, "pc-") || board == "isapc" }
