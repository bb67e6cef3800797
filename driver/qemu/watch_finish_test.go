package qemu

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// poweredOff is a machine whose guest has powered off, being watched, and whose
// QEMU has told so and stays.
func (r *rig) poweredOff(t *testing.T) (*manifest.VirtualMachine, *watching) {
	t.Helper()
	const powerManagement = 0x604
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "boot", File: bootSector(t, outWord(powerManagement, 0x2000)...), Format: manifest.FormatRaw}}
	})
	r.start(vm, true)
	r.must(r.Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
		return c.Do(ctx, "set-action", map[string]string{"shutdown": "pause"}, nil)
	}))
	w := r.watch(t)
	w.await(driver.HintConnected)
	r.must(r.SetPaused(t.Context(), "web", false))
	w.await("SHUTDOWN")
	// The action that was set: the guest is kept, stopped.
	w.await("STOP")
	return vm, w
}

const wokenWords = "it was told to go on ending"

// TestWatch_qemuHangsWhileItEnds_isWoken freezes a QEMU that has told of its end.
// The signal waits for it until it thaws.
func TestWatch_qemuHangsWhileItEnds_isWoken(t *testing.T) {
	for name, later := range map[string]bool{"while it is listened to": false, "before it is listened to": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			log := r.logTo()
			r.timing.Query, r.timing.Greeting = 300*time.Millisecond, 300*time.Millisecond
			_, w := r.poweredOff(t)
			if later {
				w.cancel()
				_ = w.returns() // the context's error
			}
			r.signal("web", unix.SIGSTOP)
			if later {
				w = r.watch(t)
			}
			awaitText(t, log, wokenWords)
			r.signal("web", unix.SIGCONT)
			w.await(driver.HintExit)
			if err := w.returns(); err != nil {
				t.Error(err)
			}
			if n := strings.Count(log.String(), wokenWords); n != 1 {
				t.Errorf("woken %d times, want once:\n%s", n, log)
			}
		})
	}
}

// awaitText waits until a log has a text.
func awaitText(t *testing.T, log *lockedBuffer, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), text); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never logged %q:\n%s", text, log)
		}
	}
}

// TestWatch_qemuKeptAfterItsGuest_isLeftAlone looks at a QEMU that somebody told to
// stay. It answers, so nothing is wrong with it.
func TestWatch_qemuKeptAfterItsGuest_isLeftAlone(t *testing.T) {
	r := newRig(t)
	log := r.logTo()
	r.timing.Query = 300 * time.Millisecond
	vm, w := r.poweredOff(t)
	for began := time.Now(); time.Since(began) < 4*r.timing.Query; {
		r.observe(vm, driver.DepthBrief, driver.Alive)
	}
	if text := log.String(); strings.Contains(text, wokenWords) {
		t.Errorf("a QEMU that answers was signalled:\n%s", text)
	}
	r.must(r.Quit(t.Context(), "web"))
	w.await(driver.HintExit)
	if err := w.returns(); err != nil {
		t.Error(err)
	}
}
