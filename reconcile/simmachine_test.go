package reconcile

import (
	"time"

	"github.com/maqet/maqet/driver"
)

// simMachine is a machine of the host.
type simMachine struct {
	*model
	changed chan struct{}
	// process counts the machine's processes: what was ordered of one is nothing to
	// the next. The others are of the present process.
	process int
	// listeners are those who hear what QEMU says.
	listeners int
	// lost tells that its sockets are gone.
	lost bool
	// deaf is a guest that hears no power button, up one that knows of it.
	deaf, up bool
	// pressed is a power button that was pressed while the guest was paused.
	pressed bool
	// panics is what QEMU does when the guest panics, if it is not the default.
	panics string
	// saved is when memory is saved for a snapshot; zero when it is not being saved.
	saved time.Time
}

// saving is how much longer QEMU saves memory, and answers nobody.
func (m *simMachine) saving() time.Duration {
	if m.saved.IsZero() {
		return 0
	}
	return max(m.saved.Sub(m.now), 0)
}

// begins starts a process.
func (m *simMachine) begins(paused bool) {
	m.process++
	m.lost, m.deaf, m.up, m.pressed, m.panics, m.saved = false, false, !paused, false, "", time.Time{}
	m.start(paused)
	m.hears(!paused)
}

// dies ends the process, and leaves what is read as its end: what maqet has asked
// for is read as that, and who was not told by QEMU goes by the files that it left.
func (m *simMachine) dies(cause driver.EndCause) {
	if m.obs.Presence != driver.Alive {
		return
	}
	switch {
	case cause == driver.EndHostReboot:
	case ending(m.want.Machine, &m.obs):
		cause = driver.EndStopped
	case cause == driver.EndSignal || m.listeners > 0:
	case cause == driver.EndWatchdog:
		cause = driver.EndCrash // It leaves its sockets behind.
	case cause != driver.EndCrash:
		cause = driver.EndGuest
	}
	m.end(cause)
}

// state is the guest's run state; empty when there is none.
func (m *simMachine) state() string {
	if m.obs.Guest == nil {
		return ""
	}
	return m.obs.Guest.RunState
}

// turns changes the guest's run state.
func (m *simMachine) turns(state string) {
	g := *m.obs.Guest
	g.RunState = state
	m.obs.Guest = &g
}

// of has something happen to a process after a while, if it is there still.
func (h *simHost) of(name string, in time.Duration, what string, do func(*simMachine)) {
	process := h.machine(name).process
	h.later(in, name+" "+what, func() {
		h.touch(name, func(m *simMachine) {
			if m.process == process && m.obs.Presence == driver.Alive {
				do(m)
			}
		})
	})
}

// later has something happen on the host after a while.
func (h *simHost) later(in time.Duration, what string, do func()) {
	time.AfterFunc(in, func() {
		h.turns.wait(h.itself, what)
		do()
	})
}

// ends ends a machine's process after a while.
func (h *simHost) ends(name string, in time.Duration, cause driver.EndCause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of(name, in, "ends", func(m *simMachine) { m.dies(cause) })
}

// presses presses the power button. A guest that is paused sees it when it goes on.
// The host's mutex is held.
func (h *simHost) presses(name string, m *simMachine) {
	if !m.up || m.deaf || h.deaf[name] {
		return
	}
	m.pressed = true
	if m.state() == runRunning {
		h.powersOff(name)
	}
}

// powersOff lets a guest that runs power off after a while. The host's mutex is held.
func (h *simHost) powersOff(name string) {
	h.of(name, h.powerOffTakes, "powers off", func(m *simMachine) {
		if m.pressed && m.state() == runRunning {
			m.dies(driver.EndGuest)
		}
	})
}

// goesOn lets the guest run. The host's mutex is held.
func (h *simHost) goesOn(name string, m *simMachine) {
	m.turns(runRunning)
	m.up = true
	m.hears(true)
	if m.pressed {
		h.powersOff(name)
	}
	h.boots(name, m)
}

// boots makes a guest that runs ready after a while. The host's mutex is held.
func (h *simHost) boots(name string, m *simMachine) {
	if m.obs.Ready || m.obs.Launched.Spec.Readiness == nil || h.readyTakes == 0 {
		return
	}
	h.of(name, h.readyTakes, "is ready", func(m *simMachine) { m.obs.Ready = m.obs.Ready || m.state() == runRunning })
}

// monitor is a command that a person gives in a monitor.
func (h *simHost) monitor(name, command string) {
	h.touch(name, func(m *simMachine) {
		switch state := m.state(); {
		case state == "":
		case command == "stop" && state == runRunning:
			m.turns(runPaused)
		case command == "cont" && (state == runPaused || state == runPrelaunch || state == runIOError):
			h.goesOn(name, m)
		case command == "quit":
			m.dies(driver.EndQuit)
		case command == "set-action panic=pause":
			m.panics = runGuestPanicked
		}
	})
}

// reboots ends a process with its host, and what dies with the boot.
func (h *simHost) reboots(name, boot string) {
	h.touch(name, func(m *simMachine) {
		m.dies(driver.EndHostReboot)
		m.bootID, m.obs.Intent = boot, nil
	})
}
