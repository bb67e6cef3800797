package reconcile

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/reconcile/hosttest"
)

// TestHost_simulated_playsTheScript holds the simulated host to the script to which
// QEMU is held, too.
func TestHost_simulated_playsTheScript(t *testing.T) {
	for _, scene := range hosttest.Script() {
		t.Run(scene.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newSimHost()
				h.readyTakes = time.Second
				scene.Run(t, scriptedHost{h})
			})
		})
	}
}

// scriptedHost is the simulated host with the hands of the script.
type scriptedHost struct{ *simHost }

// Start has a QEMU refuse what the script calls broken.
func (h scriptedHost) Start(ctx context.Context, req driver.StartRequest) error {
	if slices.Contains(req.VM.Spec.Emulator.ExtraArgs, "no-such-device") {
		return errors.New("no such device")
	}
	return h.simHost.Start(ctx, req)
}

func (scriptedHost) BootDisk() string { return "/boot.raw" }

func (h scriptedHost) Guest(_ context.Context, does hosttest.Guest) error {
	h.touch(hosttest.Name, func(m *simMachine) {
		switch does {
		case hosttest.GuestPowersOff:
			m.dies(driver.EndGuest)
		case hosttest.GuestPanics:
			if m.panics != "" {
				m.turns(m.panics)
			} else {
				m.dies(driver.EndPanic)
			}
		case hosttest.GuestHangs:
			m.dies(driver.EndWatchdog)
		case hosttest.GuestGoesDeaf:
			m.deaf = true
		case hosttest.GuestResets:
		}
	})
	return nil
}

func (h scriptedHost) Monitor(_ context.Context, command string) error {
	h.monitor(hosttest.Name, command)
	return nil
}

func (h scriptedHost) Signal(_ context.Context, signal syscall.Signal) error {
	if signal == syscall.SIGSTOP || signal == syscall.SIGCONT {
		h.set(func() { h.hung[hosttest.Name] = signal == syscall.SIGSTOP })
		return nil
	}
	cause := driver.EndCrash
	if signal == syscall.SIGTERM {
		cause = driver.EndSignal
	}
	h.ends(hosttest.Name, time.Millisecond, cause)
	return nil
}

func (h scriptedHost) LoseSockets(context.Context) error {
	h.touch(hosttest.Name, func(m *simMachine) { m.lost = true })
	return nil
}

func (h scriptedHost) Reboot(context.Context) error {
	h.reboots(hosttest.Name, "boot-2")
	return nil
}

// Passes lets more time pass than anything takes.
func (scriptedHost) Passes(ctx context.Context) { after(ctx, time.Minute) }
