package qemu

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// powersOff is a machine, paused still, whose guest powers off as soon as it runs.
func (r *rig) powersOff(t *testing.T) *manifest.VirtualMachine {
	t.Helper()
	const powerManagement = 0x604
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "boot", File: bootSector(t, outWord(powerManagement, 0x2000)...), Format: manifest.FormatRaw}}
	})
	r.start(vm, true)
	return vm
}

// poweredOff is a machine whose guest has powered off, being watched, and whose
// QEMU has told so and stays.
func (r *rig) poweredOff(t *testing.T) (*manifest.VirtualMachine, *watching) {
	t.Helper()
	vm := r.powersOff(t)
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

// poweredOffBefore is a machine whose QEMU has told a visitor alone that its guest
// has powered off, and stays. The visit goes on in fn.
func (r *rig) poweredOffBefore(t *testing.T, fn func(context.Context, *qmp.Conn) error) (*manifest.VirtualMachine, error) {
	t.Helper()
	vm := r.powersOff(t)
	err := r.Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
		events := c.Subscribe()
		for _, step := range []struct {
			command string
			args    any
		}{{"set-action", map[string]string{"shutdown": "pause"}}, {"cont", nil}} {
			if err := c.Do(ctx, step.command, step.args, nil); err != nil {
				return err
			}
		}
		for {
			select {
			case e := <-events.C():
				if e.Name == "STOP" {
					return fn(ctx, c)
				}
			case <-time.After(10 * time.Second):
				return errors.New("the guest never powered off")
			}
		}
	})
	return vm, err
}

// TestVisit_qemuHangsWhileItEnds_isWokenAndItsEndToldApart has no watcher that would
// do it. The signal waits for QEMU until it thaws.
func TestVisit_qemuHangsWhileItEnds_isWokenAndItsEndToldApart(t *testing.T) {
	r := newRig(t)
	log := r.logTo()
	vm, err := r.poweredOffBefore(t, func(ctx context.Context, c *qmp.Conn) error {
		r.signal("web", unix.SIGSTOP)
		process := r.childOf("web").handle
		thawed := make(chan error, 1)
		go func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for t.Context().Err() == nil && !strings.Contains(log.String(), wokenWords) {
				<-tick.C
			}
			thawed <- process.signal(unix.SIGCONT)
		}()
		t.Cleanup(func() { r.must(<-thawed) })
		asking, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		return c.Do(asking, "query-status", nil, nil)
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Visit = %v", err)
	}
	o := rigAt(t, r.layout).observe(vm, driver.DepthBrief, driver.Absent)
	if e := o.Ended; e == nil || e.Cause != driver.EndGuest || e.Reason != "guest-shutdown" {
		t.Errorf("another maqet sees %+v, want the guest's own end", e)
	}
}

// TestVisit_qemuAnswersAfterItsGuest_isLeftAlone keeps QEMU by somebody's word.
func TestVisit_qemuAnswersAfterItsGuest_isLeftAlone(t *testing.T) {
	r := newRig(t)
	log := r.logTo()
	vm, err := r.poweredOffBefore(t, func(ctx context.Context, c *qmp.Conn) error {
		return c.Do(ctx, "query-status", nil, nil)
	})
	r.must(err)
	r.observe(vm, driver.DepthBrief, driver.Alive)
	if text := log.String(); strings.Contains(text, wokenWords) {
		t.Errorf("a QEMU that answers was signalled:\n%s", text)
	}
}

// TestWatch_qemuKilledAfterItsGuest_isTheGuestsEnd ends a QEMU that was kept after its
// guest had powered off. Begun anew, the guest is another.
func TestWatch_qemuKilledAfterItsGuest_isTheGuestsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		reset bool
		want  driver.EndCause
	}{
		"kept":       {false, driver.EndGuest},
		"begun anew": {true, driver.EndCrash},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			vm, w := r.poweredOff(t)
			if c.reset {
				r.must(r.order(t.Context(), "web", "reset", "system_reset"))
				w.await("RESET")
			}
			r.signal("web", unix.SIGKILL)
			w.await(driver.HintExit)
			if err := w.returns(); err != nil {
				t.Error(err)
			}
			if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended == nil || o.Ended.Cause != c.want {
				t.Errorf("Ended = %+v, want %s", o.Ended, c.want)
			}
		})
	}
}
