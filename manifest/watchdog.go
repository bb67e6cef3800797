package manifest

// WatchdogModel is a watchdog device.
type WatchdogModel string

// The models. Absent: i6300esb.
const (
	// WatchdogI6300ESB is a PCI device.
	WatchdogI6300ESB WatchdogModel = "i6300esb"
	// WatchdogIB700 is an ISA device of PCs.
	WatchdogIB700 WatchdogModel = "ib700"
)

// WatchdogAction is what QEMU does when the watchdog runs out.
type WatchdogAction string

// The actions, in QEMU's words. Absent: reset.
const (
	// WatchdogReset resets the guest.
	WatchdogReset WatchdogAction = "reset"
	// WatchdogShutdown presses the guest's power button.
	WatchdogShutdown WatchdogAction = "shutdown"
	// WatchdogPoweroff ends QEMU; the restart policy decides what follows.
	WatchdogPoweroff WatchdogAction = "poweroff"
	// WatchdogPause stops the vCPUs; the machine is Failed then.
	WatchdogPause WatchdogAction = "pause"
	// WatchdogInjectNMI sends the guest a non-maskable interrupt.
	WatchdogInjectNMI WatchdogAction = "inject-nmi"
	// WatchdogDebug writes a line into QEMU's log.
	WatchdogDebug WatchdogAction = "debug"
	// WatchdogNone does nothing.
	WatchdogNone WatchdogAction = "none"
)

// Watchdog is a device that acts when the guest does not feed it in time. It does
// nothing until the guest starts it.
type Watchdog struct {
	// Model is the device. Absent: i6300esb.
	Model WatchdogModel `json:"model,omitempty"`
	// Action is what QEMU does when it runs out. Absent: reset.
	Action WatchdogAction `json:"action,omitempty"`
}

func (w *Watchdog) resolve() {
	if w != nil {
		setDefault(&w.Model, WatchdogI6300ESB)
		setDefault(&w.Action, WatchdogReset)
	}
}
