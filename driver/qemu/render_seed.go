package qemu

import (
	"fmt"

	"github.com/maqet/maqet/driver"
)

// The seed's nodes and drive, besides its controller (driver.SeedDevice).
const (
	seedFileNode = driver.SeedDevice + ".file"
	seedNode     = driver.SeedDevice + ".iso"
	seedDrive    = driver.SeedDevice + ".cd"

	seedController   = "virtio-scsi-pci"
	seedDriveDriver  = "scsi-cd"
	seedControllerOf = driver.SeedDevice + ".0"
)

// seed renders the drive with the seed: an optical one, which no firmware takes for
// the disk to boot from, on a controller of its own, so that it comes and goes
// without another drive noticing.
func (r *renderer) seed() {
	if r.VM.Spec.CloudInit == nil {
		return
	}
	const path = "spec.cloudInit"
	slot := r.pciSeat(path, driver.SeedDevice, seedController)
	r.addJSON(path, "-blockdev", object{
		{"node-name", seedFileNode},
		{"driver", "file"},
		{"filename", r.Layout.Seed(r.VM.Metadata.Name)},
		{"read-only", true},
		{"auto-read-only", false},
	})
	r.addJSON(path, "-blockdev", object{
		{"node-name", seedNode}, {"driver", "raw"}, {"file", seedFileNode}, {"read-only", true}, {"auto-read-only", false},
	})
	r.addJSON(path, "-device", append(object{{"driver", seedController}, {"id", driver.SeedDevice}}, seat(slot)...))
	r.addJSON(path, "-device", object{{"driver", seedDriveDriver}, {"id", seedDrive}, {"bus", seedControllerOf}, {"drive", seedNode}})
}

// checkSeed checks that the board has what the seed is attached to.
func (c *check) checkSeed() {
	const path = "spec.cloudInit"
	if c.vm.Spec.CloudInit == nil {
		return
	}
	if c.family() == driver.FamilyNone {
		c.find(path, noPCIMessage(seedController, c.board.Name), noPCIHint)
		return
	}
	for _, device := range []string{seedController, seedDriveDriver} {
		if !c.host.Devices[device] {
			c.find(path, fmt.Sprintf("%s was built without %s, on which the seed is", c.host.Binary, device), "use another QEMU")
		}
	}
}
