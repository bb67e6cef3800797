package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// step lets time pass and one thing happen.
func (w *simWorld) step() {
	w.elapse()
	if w.process.isDead() {
		w.end()
		w.begin()
	}
	w.check()
	events := w.events()
	names := slices.Sorted(maps.Keys(events))
	name := names[w.rnd.IntN(len(names))]
	w.log("event: %s", name)
	events[name]()
	w.noteFolder()
}

// elapse lets some time pass, mostly little, and everything happen that is due.
func (w *simWorld) elapse() {
	most := 2 * time.Second
	switch w.rnd.IntN(20) {
	case 0:
		most = 10 * time.Minute
	case 1, 2:
		most = time.Minute
	}
	w.passes(1 + time.Duration(w.rnd.Int64N(int64(most))))
}

func (w *simWorld) records() map[string]*state.Machine {
	all := map[string]*state.Machine{}
	_ = w.disk.View(context.Background(), func(tx Tx) error {
		machines, err := tx.Machines()
		for _, m := range machines {
			all[m.Object.Metadata.Name] = m
		}
		return err
	})
	return all
}

func (w *simWorld) observations() map[string]driver.Observed {
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	all := map[string]driver.Observed{}
	for name, m := range w.host.machines {
		all[name] = m.obs
	}
	return all
}

// pick draws one of the machines that any file or record has.
func (w *simWorld) pick() string {
	names := w.names()
	return names[w.rnd.IntN(len(names))]
}

func (w *simWorld) names() []string {
	all := map[string]bool{}
	for _, f := range w.files {
		for name := range f.vms {
			all[name] = true
		}
	}
	for name := range w.records() {
		all[name] = true
	}
	if len(all) == 0 {
		return []string{"m0"}
	}
	return slices.Sorted(maps.Keys(all))
}

func (w *simWorld) pickFile() *simFile {
	names := slices.Sorted(maps.Keys(w.files))
	if len(names) == 0 {
		return &simFile{vms: map[string]*manifest.VirtualMachine{}, snaps: map[string]*manifest.Snapshot{}}
	}
	return w.files[names[w.rnd.IntN(len(names))]]
}

// saved tells the controller of the folder, mostly.
func (w *simWorld) saved() {
	if w.rnd.IntN(10) > 0 {
		nudge(w.changes)
	}
}

func (w *simWorld) addMachine() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.files) > 5 {
		return
	}
	w.made++
	name := fmt.Sprintf("m%d", w.made)
	policies := []manifest.RestartPolicy{manifest.RestartAlways, manifest.RestartOnFailure, manifest.RestartOnFailure, manifest.RestartNever}
	vm := newVM(name, func(s *manifest.VirtualMachineSpec) {
		s.RestartPolicy = policies[w.rnd.IntN(len(policies))]
		if w.rnd.IntN(3) == 0 {
			probed(s)
		}
		if w.rnd.IntN(2) == 0 {
			s.GuestAgent = &manifest.GuestAgent{}
		}
	})
	w.files[name+".yaml"] = &simFile{vms: map[string]*manifest.VirtualMachine{name: vm}, snaps: map[string]*manifest.Snapshot{}}
}

// edit changes a machine in a file.
func (w *simWorld) edit(change func(*manifest.VirtualMachineSpec)) {
	w.mu.Lock()
	f := w.pickFile()
	for _, name := range slices.Sorted(maps.Keys(f.vms)) {
		vm := f.vms[name].DeepCopy()
		change(&vm.Spec)
		f.vms[name] = manifest.Resolve(vm, "/vms")
	}
	w.mu.Unlock()
	w.saved()
}

// ends ends a machine's process.
func (w *simWorld) ends(cause driver.EndCause) {
	w.host.touch(w.pick(), func(m *simMachine) { m.dies(cause) })
}

// goes changes what a guest that runs does.
func (w *simWorld) goes(to string) {
	w.host.touch(w.pick(), func(m *simMachine) {
		if m.state() == runRunning {
			m.turns(to)
		}
	})
}

// person does something as a command does, beside the controller.
func (w *simWorld) person(what string, do func(ctx context.Context, e *Engine, name string) error) {
	name := w.pick()
	w.log("ann: %s %s", what, name)
	w.said++
	who := named(context.Background(), fmt.Sprintf("ann %d", w.said))
	w.people.Go(func() {
		ctx, cancel := context.WithTimeout(who, 3*time.Minute)
		defer cancel()
		if err := do(ctx, w.cli(), name); err != nil {
			w.log("ann: %s %s: %v", what, name, err)
		}
	})
}

func (w *simWorld) power(p manifest.PowerState) func(context.Context, *Engine, string) error {
	var until time.Time
	if w.rnd.IntN(2) == 0 {
		until = time.Now().Add(time.Duration(w.rnd.IntN(300)) * time.Second)
	}
	return func(ctx context.Context, e *Engine, name string) error {
		_, err := e.SetPower(ctx, name, PowerRequest{PowerState: p, Until: until}, Options{})
		return err
	}
}

// reboot ends everything at once.
func (w *simWorld) reboot() {
	w.process.kill(0)
	w.end()
	w.people.Wait()
	w.boot++
	trace := w.rnd.IntN(2) == 0
	for _, name := range slices.Sorted(maps.Keys(w.observations())) {
		w.host.reboots(name, w.bootID())
		if !trace {
			w.host.touch(name, func(m *simMachine) { m.obs.Ended, m.obs.Launched = nil, nil })
		}
	}
	w.host.set(func() { clear(w.host.hung) })
	w.begin()
}

func (h *simHost) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

// events are what may happen, by name.
func (w *simWorld) events() map[string]func() {
	all := map[string]func(){
		"crash":       func() { w.ends(driver.EndCrash) },
		"power off":   func() { w.ends(driver.EndGuest) },
		"signal":      func() { w.ends(driver.EndSignal) },
		"panic":       func() { w.ends(driver.EndPanic) },
		"watchdog":    func() { w.ends(driver.EndWatchdog) },
		"hand quit":   func() { w.ends(driver.EndQuit) },
		"hand stop":   func() { w.host.monitor(w.pick(), "stop") },
		"hand cont":   func() { w.host.monitor(w.pick(), "cont") },
		"io-error":    func() { w.goes(runIOError) },
		"panicked":    func() { w.goes(runGuestPanicked) },
		"hang":        func() { name := w.pick(); w.host.set(func() { w.host.hung[name] = true }) },
		"slow":        func() { name := w.pick(); w.host.set(func() { w.host.slow[name] = true }) },
		"answers":     func() { w.host.set(func() { clear(w.host.hung); clear(w.host.slow) }) },
		"agent ends":  func() { w.host.touch(w.pick(), func(m *simMachine) { m.hears(false) }) },
		"agent runs":  func() { w.host.touch(w.pick(), func(m *simMachine) { m.hears(true) }) },
		"left frozen": func() { w.host.leftFrozen(w.pick()) },
		"deaf":        func() { name := w.pick(); w.host.set(func() { w.host.deaf[name] = !w.host.deaf[name] }) },
		"start fails": func() {
			name := w.pick()
			// The host refuses before a QEMU is run, or QEMU itself does.
			var err error = &driver.StartError{Exit: "exit status 1", LastLine: "no such device"}
			if w.rnd.IntN(2) == 0 {
				err = errors.New("no such file")
			}
			w.host.set(func() { w.host.fail[name+" start"] = err })
		},
		"starts work": func() { w.host.set(func() { clear(w.host.fail) }) },
		"disk full":   func() { w.disk.setFail(errors.New("no space left on device")) },
		"disk mended": func() { w.disk.setFail(nil) },
		"lossy":       func() { w.lossy.Store(!w.lossy.Load()) },
		"kill soon":   func() { w.process.kill(w.rnd.IntN(8)) },
		"restart":     func() { w.end(); w.begin() },
		"reboot": func() {
			if w.rnd.IntN(4) == 0 {
				w.reboot()
			}
		},
		"nothing":    func() {},
		"look again": func() { w.process.controller.LookAgain() },
	}
	maps.Copy(all, w.folderEvents())
	maps.Copy(all, w.peopleEvents())
	return all
}

func (w *simWorld) folderEvents() map[string]func() {
	locked := func(do func()) func() {
		return func() {
			w.mu.Lock()
			do()
			w.mu.Unlock()
			w.saved()
		}
	}
	return map[string]func(){
		"add file":    func() { w.addMachine(); w.saved() },
		"break file":  locked(func() { w.pickFile().broken = true }),
		"mend files":  locked(w.mend),
		"folder gone": locked(func() { w.gone = true }),
		"folder back": locked(func() { w.gone = false }),
		"remove file": locked(func() {
			if names := slices.Sorted(maps.Keys(w.files)); len(names) > 0 {
				delete(w.files, names[w.rnd.IntN(len(names))])
			}
		}),
		"copy": locked(func() {
			// The same machine in a second file is a conflict of both.
			from, to := w.pickFile(), w.pickFile()
			maps.Copy(to.vms, from.vms)
		}),
		"snapshot": locked(func() {
			f := w.pickFile()
			for _, vm := range slices.Sorted(maps.Keys(f.vms)) {
				w.made++
				method := []manifest.SnapshotMethod{manifest.SnapshotDisk, manifest.SnapshotFull}[w.rnd.IntN(2)]
				s := newSnap(fmt.Sprintf("s%d", w.made), vm, method).Object
				s.Spec.Quiesce = []manifest.Quiesce{manifest.QuiesceRequired, manifest.QuiesceIfAvailable, manifest.QuiesceNever, ""}[w.rnd.IntN(4)]
				if w.rnd.IntN(2) == 0 {
					s.Spec.OnDelete = manifest.SnapshotDelete
				}
				if len(f.snaps) < 3 {
					f.snaps[s.Metadata.Name] = &s
				}
			}
		}),
		"remove snapshots": locked(func() { clear(w.pickFile().snaps) }),
		"edit memory":      func() { w.edit(func(s *manifest.VirtualMachineSpec) { s.Memory.Size += 1 << 20 }) },
		"edit running": func() {
			w.edit(func(s *manifest.VirtualMachineSpec) { s.PowerState = manifest.PowerRunning })
		},
		"edit stopped": func() {
			w.edit(func(s *manifest.VirtualMachineSpec) { s.PowerState = manifest.PowerStopped })
		},
		"edit paused": func() {
			w.edit(func(s *manifest.VirtualMachineSpec) { s.PowerState = manifest.PowerPaused })
		},
	}
}

// mend makes all files good again; of a machine in two, the second goes.
func (w *simWorld) mend() {
	seen := map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(w.files)) {
		f := w.files[file]
		f.broken = false
		f.vms = maps.Clone(f.vms)
		for name := range f.vms {
			if seen[name] {
				delete(f.vms, name)
			}
			seen[name] = true
		}
	}
}

func (w *simWorld) peopleEvents() map[string]func() {
	return map[string]func(){
		"start": func() { w.person("start", w.power(manifest.PowerRunning)) },
		"stop":  func() { w.person("stop", w.power(manifest.PowerStopped)) },
		"pause": func() { w.person("pause", w.power(manifest.PowerPaused)) },
		"restart by hand": func() {
			w.person("restart", func(ctx context.Context, e *Engine, name string) error {
				_, err := e.Restart(ctx, name, Options{})
				return err
			})
		},
		"hold": func() {
			w.person("hold", func(ctx context.Context, e *Engine, name string) error {
				_, err := e.Hold(ctx, name, state.Hold{Until: time.Now().Add(2 * time.Minute)}, Options{})
				return err
			})
		},
		"release": func() {
			w.person("release", func(ctx context.Context, e *Engine, name string) error {
				_, err := e.Release(ctx, name, Options{})
				return err
			})
		},
		"delete": func() {
			if w.rnd.IntN(3) > 0 {
				return
			}
			w.person("delete", func(ctx context.Context, e *Engine, name string) error {
				_, err := e.Delete(ctx, name, DeleteOptions{})
				return err
			})
		},
	}
}

// calms ends all faults, and waits for long enough.
func (w *simWorld) calms() {
	w.log("all faults end")
	w.host.set(func() { clear(w.host.hung); clear(w.host.slow); clear(w.host.deaf); clear(w.host.fail) })
	w.disk.setFail(nil)
	w.mu.Lock()
	w.mend()
	w.gone = false
	w.mu.Unlock()
	w.lossy.Store(false)
	if w.process.kill(-1); w.process.isDead() {
		w.end()
		w.begin()
	}
	nudge(w.changes)
	w.people.Wait()
	for _, name := range w.names() {
		w.host.leftFrozen(name)
	}
	w.passes(45 * time.Minute)
	w.check()
}
