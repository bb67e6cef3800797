package qemu

import (
	"context"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func TestWatchdog_realQEMU_isReadBack(t *testing.T) {
	r := newRig(t)
	for _, model := range []manifest.WatchdogModel{manifest.WatchdogI6300ESB, manifest.WatchdogIB700} {
		vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.Watchdog = &manifest.Watchdog{Model: model} })
		r.start(vm, true)
		o := r.observe(vm, driver.DepthFull, driver.Alive)
		if o.Guest.Watchdog != string(model) || len(o.Guest.Devices) != 0 {
			t.Errorf("QEMU has the watchdog %q and the devices %+v, want %s", o.Guest.Watchdog, o.Guest.Devices, model)
		}
		if w := o.Launched.Spec.Watchdog; w == nil || w.Action != manifest.WatchdogReset {
			t.Errorf("the launch record has %+v", w)
		}
		r.end()
	}
}

func TestWatchdog_realQEMU_everyActionIsTaken(t *testing.T) {
	host := realHost(t)
	for _, action := range []manifest.WatchdogAction{
		manifest.WatchdogReset, manifest.WatchdogShutdown, manifest.WatchdogPoweroff, manifest.WatchdogPause,
		manifest.WatchdogInjectNMI, manifest.WatchdogDebug, manifest.WatchdogNone,
	} {
		c := argvCase{name: "watched", paused: true, spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: q35(), Watchdog: &manifest.Watchdog{Action: action}}
		}}
		run := startReal(t, realInput(t, c, host))
		if kind := run.property(t, "/machine/peripheral/"+driver.WatchdogDevice, "type"); kind != "i6300esb" {
			t.Errorf("%s: the watchdog is %v", action, kind)
		}
		run.stop()
	}
}

// TestWatchdog_realQEMU_actsWhenItRunsOut has a guest that starts its watchdog and
// never feeds it.
func TestWatchdog_realQEMU_actsWhenItRunsOut(t *testing.T) {
	const watchdogTimer = 0x443
	watched := func(t *testing.T, action manifest.WatchdogAction) func(*manifest.VirtualMachineSpec) {
		return func(s *manifest.VirtualMachineSpec) {
			s.Disks = []manifest.Disk{{Name: "boot", File: bootSector(t, outByte(watchdogTimer, 0xf)...), Format: manifest.FormatRaw}}
			s.Watchdog = &manifest.Watchdog{Model: manifest.WatchdogIB700, Action: action}
		}
	}
	t.Run("poweroff", func(t *testing.T) {
		r := newRig(t)
		vm := r.vm("web", watched(t, manifest.WatchdogPoweroff))
		r.start(vm, true)
		w := r.watch(t)
		w.await(driver.HintConnected)
		r.must(r.SetPaused(t.Context(), "web", false))
		w.await(driver.HintExit)
		if err := w.returns(); err != nil {
			t.Fatal(err)
		}
		if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended.Cause != driver.EndWatchdog {
			t.Errorf("ended by %s", o.Ended.Cause)
		}
	})
	t.Run("pause", func(t *testing.T) {
		r := newRig(t)
		vm := r.vm("web", watched(t, manifest.WatchdogPause))
		r.start(vm, true)
		w := r.watch(t)
		w.await(driver.HintConnected)
		r.must(r.SetPaused(t.Context(), "web", false))
		w.await("WATCHDOG")
		ctx, cancel := context.WithTimeout(t.Context(), realTimeout)
		defer cancel()
		for r.observe(vm, driver.DepthBrief, driver.Alive).Guest.RunState != "watchdog" {
			r.must(pause(ctx, firstTry))
		}
	})
}

func TestCheck_watchdog_whatTheBoardCannotHave(t *testing.T) {
	for board, c := range map[string]struct {
		model manifest.WatchdogModel
		says  string
	}{
		"isapc": {manifest.WatchdogI6300ESB, "no PCI bus"},
		"none":  {manifest.WatchdogIB700, "no ISA bus"},
	} {
		p := testProber(t)
		spec := manifest.VirtualMachineSpec{
			Emulator: &manifest.Emulator{Binary: fakeHost(t, p, testHost())}, Machine: &manifest.Machine{Type: board}, Watchdog: &manifest.Watchdog{Model: c.model},
		}
		_, findings, err := p.Check(t.Context(), testVM("web", spec))
		if err != nil || len(findings) != 1 || findings[0].Path != "spec.watchdog.model" || !strings.Contains(findings[0].Msg, c.says) || findings[0].Hint == "" {
			t.Errorf("%s: error %v, findings %+v", board, err, findings)
		}
	}
}
