package qemu

import "github.com/maqet/maqet/driver"

// The names of what maqet adds for the guest's agent.
const (
	agentChardev = "maqet.qga"
	agentDriver  = "virtio-serial-pci"
	// agentPortName is what the agent in the guest looks for.
	agentPortName = "org.qemu.guest_agent.0"
)

// guestAgent renders the port of the guest's agent and the controller it is on.
func (r *renderer) guestAgent() {
	const path = "spec.guestAgent"
	if r.VM.Spec.GuestAgent == nil {
		return
	}
	slot := r.pciSeat(path, driver.AgentController, agentDriver)
	r.add(path, "-chardev", listener(agentChardev, r.inherit(File{Kind: AgentListener})))
	controller := append(object{{"driver", agentDriver}, {"id", driver.AgentController}}, seat(slot)...)
	r.addJSON(path, "-device", controller)
	r.addJSON(path, "-device", object{
		{"driver", "virtserialport"},
		{"id", driver.AgentPort},
		{"bus", driver.AgentController + ".0"},
		{"nr", 1}, // the first number is a console's
		{"chardev", agentChardev},
		{"name", agentPortName},
	})
}
