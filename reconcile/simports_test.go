package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// errThere is why nothing is done to the files of a machine that has a process.
var errThere = errors.New("its process is there")

func (h *simHost) Start(ctx context.Context, req driver.StartRequest) (*driver.Observed, error) {
	name := req.VM.Metadata.Name
	if err := h.call(ctx, "%s start", name); err != nil {
		return nil, err
	}
	h.mu.Lock()
	m := h.machine(name)
	if m.obs.Presence != driver.Absent {
		h.mu.Unlock()
		return nil, errThere
	}
	for _, d := range req.VM.Spec.Disks {
		if d.Size > 0 && !m.obs.Files[d.Name].Exists {
			h.mu.Unlock()
			return nil, fmt.Errorf("could not open disk %s", d.Name)
		}
	}
	h.starting++
	h.mostStarting = max(h.mostStarting, h.starting)
	h.mu.Unlock()
	after(ctx, h.startTakes)
	h.turns.wait(ctx, name+" started")
	h.touch(name, func(m *simMachine) {
		h.starting--
		m.want.Machine = &stateMachine{Object: *req.VM, Generation: req.Generation}
		// What the last process left goes with the next one's start.
		m.obs.Ended, m.obs.Intent = nil, nil
		m.begins(req.Paused)
		m.obs.PID = 4711
		if !req.Paused {
			h.boots(name, m)
		}
	})
	return nil, nil //nolint:nilnil // It leaves the look to its caller.
}

// reach waits for QEMU to take a command; not there is an error only for those who
// say so.
func (h *simHost) reach(ctx context.Context, name string) (there bool, err error) {
	h.mu.Lock()
	m := h.machine(name)
	alive, lost := m.obs.Presence == driver.Alive, m.lost
	silent := alive && (h.hung[name] || h.silent[name] || m.saving() > lookTakes)
	h.mu.Unlock()
	switch {
	case alive && lost:
		return true, driver.ErrUnresponsive
	case silent:
		after(ctx, lookTakes)
		h.turns.wait(ctx, name+" unreached")
		return true, driver.ErrUnresponsive
	default:
		return alive, nil
	}
}

func (h *simHost) Powerdown(ctx context.Context, name string) error {
	if err := h.call(ctx, "%s powerdown", name); err != nil {
		return err
	}
	there, err := h.reach(ctx, name)
	if there && err == nil {
		h.touch(name, func(m *simMachine) { h.presses(name, m) })
	}
	return err
}

func (h *simHost) Quit(ctx context.Context, name string) error {
	if err := h.call(ctx, "%s quit", name); err != nil {
		return err
	}
	if there, err := h.reach(ctx, name); !there || err != nil || h.deafQEMU[name] {
		return err
	}
	h.ends(name, time.Millisecond, driver.EndQuit)
	return nil
}

func (h *simHost) Kill(ctx context.Context, name string) error {
	err := h.call(ctx, "%s kill", name)
	if err == nil {
		h.ends(name, time.Millisecond, driver.EndCrash)
	}
	return err
}

func (h *simHost) SetPaused(ctx context.Context, name string, paused bool) error {
	if err := h.call(ctx, "%s paused %v", name, paused); err != nil {
		return err
	}
	there, err := h.reach(ctx, name)
	if !there || err != nil {
		return errors.Join(errors.New("it does not run"), err)
	}
	h.touch(name, func(m *simMachine) {
		switch {
		case m.obs.Guest == nil:
			err = errors.New("it has ended")
		case paused:
			m.turns(runPaused)
		default:
			h.goesOn(name, m)
		}
	})
	return err
}

func (h *simHost) EnsureIdentity(ctx context.Context, vm *manifest.VirtualMachine) (driver.Identity, error) {
	name := vm.Metadata.Name
	err := h.call(ctx, "%s identity", name)
	h.touch(name, func(m *simMachine) {
		m.want.Machine = &stateMachine{Object: *vm}
		m.identify()
	})
	return *h.obs(name).Identity, err
}

func (h *simHost) WriteIntent(ctx context.Context, name string, in *driver.Intent) error {
	err := h.call(ctx, "%s intent", name)
	if err == nil {
		h.touch(name, func(m *simMachine) { m.obs.Intent = in })
	}
	return err
}

func (h *simHost) ClearRun(ctx context.Context, name string) error {
	err := h.call(ctx, "%s clear-run", name)
	h.touch(name, func(m *simMachine) {
		if err == nil && m.obs.Presence == driver.Alive {
			err = errThere
		}
		if err == nil {
			m.obs.Ended, m.obs.Launched, m.obs.Intent = nil, nil, nil
		}
	})
	return err
}

func (h *simHost) Forget(ctx context.Context, name string, deleteDisks bool) (string, error) {
	err := h.call(ctx, "%s forget %v", name, deleteDisks)
	h.touch(name, func(m *simMachine) {
		if err == nil && m.obs.Presence == driver.Alive {
			err = errThere
		}
		if err == nil {
			m.doHost(Step{Kind: StepForget})
		}
	})
	if err != nil || deleteDisks {
		return "", err
	}
	return "/kept/" + name, nil
}

func (h *simHost) CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error {
	name := vm.Metadata.Name
	if err := h.call(ctx, "%s create %s", name, disk); err != nil {
		return err
	}
	if h.cutOff != nil {
		h.cutOff()
		<-ctx.Done()
		return ctx.Err()
	}
	h.touch(name, func(m *simMachine) {
		m.want.Machine = &stateMachine{Object: *vm}
		m.createDisk(disk)
	})
	return nil
}

func (h *simHost) GrowDisk(ctx context.Context, vm *manifest.VirtualMachine, _ driver.Observed, disk string) error {
	name := vm.Metadata.Name
	if err := h.call(ctx, "%s grow %s", name, disk); err != nil {
		return err
	}
	there, err := h.reach(ctx, name)
	if err != nil {
		return err
	}
	h.touch(name, func(m *simMachine) {
		i := slices.IndexFunc(vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == disk })
		switch f := m.obs.Files[disk]; {
		case i < 0 || !f.Exists:
			err = fmt.Errorf("there is no disk %s", disk)
		case there && m.obs.Guest == nil:
			err = errors.New("it has ended")
		case f.Size > vm.Spec.Disks[i].Size.Bytes():
			err = errors.New("it would shrink")
		default:
			m.growDisk(disk, vm.Spec.Disks[i].Size)
		}
	})
	return err
}

func (h *simHost) ThrottleDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error {
	name := vm.Metadata.Name
	if err := h.call(ctx, "%s throttle %s", name, disk); err != nil {
		return err
	}
	there, err := h.reach(ctx, name)
	if !there || err != nil {
		return errors.Join(errors.New("it does not run"), err)
	}
	h.touch(name, func(m *simMachine) {
		if m.driveOf(disk) == nil {
			err = fmt.Errorf("QEMU has no disk %s", disk)
			return
		}
		for _, d := range vm.Spec.Disks {
			if d.Name == disk {
				m.throttleDisk(disk, d.Throttle)
			}
		}
	})
	return err
}

func (h *simHost) TakeSnapshot(ctx context.Context, vm *manifest.VirtualMachine, _ driver.Observed, req driver.SnapshotIntent) error {
	name := vm.Metadata.Name
	if err := h.call(ctx, "%s take %s %s", name, req.Tag, req.Method); err != nil {
		return err
	}
	there, err := h.reach(ctx, name)
	if err == nil {
		err = h.freezes(name, req)
	}
	if err == nil {
		err = h.lives(ctx)
	}
	if err != nil {
		h.thaws(ctx, name)
		return err
	}
	defer h.thaws(ctx, name)
	h.touch(name, func(m *simMachine) {
		_, exists := m.obs.Snapshots[req.Tag]
		switch full := req.Method == manifest.SnapshotFull; {
		case exists:
			err = fmt.Errorf("snapshot %s is there already", req.Tag)
		case there && m.obs.Guest == nil:
			err = errors.New("it has ended")
		case full && !there:
			err = errors.New("memory of a machine that does not run cannot be saved")
		case full:
			h.saves(name, m, req)
		default:
			m.addSnapshot(req.Tag, 0)
		}
	})
	return errors.Join(err, h.lives(ctx))
}

// saves begins the job of a snapshot with memory. The host's mutex is held.
func (h *simHost) saves(name string, m *simMachine, req driver.SnapshotIntent) {
	g := *m.obs.Guest
	g.Jobs = append(slices.Clip(g.Jobs), driver.Job{ID: req.Job, Type: "snapshot-save", Status: "running"})
	m.obs.Guest, m.saved = &g, m.now.Add(h.jobTakes)
	h.of(name, h.jobTakes, "has saved", func(m *simMachine) {
		m.saved = time.Time{}
		m.addSnapshot(req.Tag, 1)
		for i := range m.obs.Guest.Jobs {
			m.obs.Guest.Jobs[i].Status = "concluded"
		}
	})
}

func (h *simHost) FinishSnapshot(ctx context.Context, vm *manifest.VirtualMachine, _ driver.Observed, req driver.SnapshotIntent) error {
	name := vm.Metadata.Name
	err := h.call(ctx, "%s finish %s", name, req.Tag)
	if _, unreached := h.reach(ctx, name); unreached != nil {
		return errors.Join(err, unreached)
	}
	h.touch(name, func(m *simMachine) {
		if m.saving() > 0 {
			err = errors.Join(err, errors.New("it is being taken"))
			return
		}
		if m.obs.Guest != nil {
			m.obs.Guest.Jobs = nil
		}
		if err != nil {
			delete(m.obs.Snapshots, req.Tag) // What a job that failed has left is deleted.
		} else if _, exists := m.obs.Snapshots[req.Tag]; !exists {
			err = fmt.Errorf("no disk has a snapshot %s", req.Tag)
		}
	})
	return err
}

func (h *simHost) DeleteSnapshot(ctx context.Context, vm *manifest.VirtualMachine, _ driver.Observed, tag string) error {
	name := vm.Metadata.Name
	if err := h.call(ctx, "%s delete-snapshot %s", name, tag); err != nil {
		return err
	}
	_, err := h.reach(ctx, name)
	if err == nil {
		h.touch(name, func(m *simMachine) { delete(m.obs.Snapshots, tag) })
	}
	return err
}

func (h *simHost) RestoreSnapshot(ctx context.Context, vm *manifest.VirtualMachine, _ driver.Observed, tag string) (driver.RestoreReport, error) {
	name := vm.Metadata.Name
	err := h.call(ctx, "%s revert %s", name, tag)
	h.touch(name, func(m *simMachine) {
		if err == nil && m.obs.Presence == driver.Alive {
			err = errThere
		}
	})
	return driver.RestoreReport{Tag: tag, Disks: []string{"root"}}, err
}

func (h *simHost) LoadSnapshot(ctx context.Context, vm *manifest.VirtualMachine, _ driver.Observed, req driver.SnapshotIntent) (map[string][]string, error) {
	name := vm.Metadata.Name
	if err := h.call(ctx, "%s load %s", name, req.Tag); err != nil {
		return nil, err
	}
	there, err := h.reach(ctx, name)
	if !there || err != nil {
		return nil, errors.Join(errors.New("it does not run"), err)
	}
	h.touch(name, func(m *simMachine) {
		if m.obs.Guest == nil {
			err = errors.New("it has ended")
			return
		}
		g := *m.obs.Guest
		m.obs.Guest = &g
		m.load(Step{Kind: StepLoadSnapshot, Snapshot: req.Tag, Intent: &driver.Intent{Snapshot: &req}})
		h.of(name, h.jobTakes, "has loaded", func(m *simMachine) {
			for i := range m.obs.Guest.Jobs {
				m.obs.Guest.Jobs[i].Status = "concluded"
			}
		})
	})
	return nil, err
}

func (h *simHost) FinishLoad(ctx context.Context, vm *manifest.VirtualMachine, _ driver.Observed, req driver.SnapshotIntent) error {
	name := vm.Metadata.Name
	err := h.call(ctx, "%s finish-load %s", name, req.Tag)
	h.touch(name, func(m *simMachine) {
		if m.obs.Guest != nil && err == nil {
			m.obs.Guest.Jobs = nil
		}
	})
	return err
}

// Watch tells of a machine's changes until its process has ended.
func (h *simHost) Watch(ctx context.Context, name string, hint func(driver.Hint)) error {
	h.turns.wait(ctx, "watch "+name)
	h.mu.Lock()
	process := h.machine(name).process
	h.machine(name).listeners++
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.machine(name).listeners--
	}()
	hint(driver.Hint{Kind: driver.HintConnected})
	for {
		h.mu.Lock()
		m := h.machine(name)
		gone, changed := m.obs.Presence == driver.Absent || m.process != process, m.changed
		h.mu.Unlock()
		if gone {
			hint(driver.Hint{Kind: driver.HintExit})
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		// Twice, since what comes twice changes nothing.
		hint(driver.Hint{Kind: "STOP"})
		hint(driver.Hint{Kind: "STOP"})
	}
}

// after waits for a time or for ctx.
func after(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}
