package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/state"
)

// execution executes the steps of one round.
type execution struct {
	run *run
	// want is the record as the steps change it.
	want *Desired
	// obs is what the plan was made for.
	obs driver.Observed
	// did are the steps that succeeded, at the places of results from first on.
	did   []Step
	first int
	// broke is why a step failed; nil when none did.
	broke error
	// aside are where disks were moved to, by disk name.
	aside map[string]string
	// bitmaps says which dirty bitmaps a restore has removed; empty for none.
	bitmaps string
	// began is what a start has shown of the machine; nil when there was none, or
	// when anything was done after it.
	began *driver.Observed
	// declined is why the guest's agent did not take the order to power off.
	declined string
}

// all executes steps in order until one fails or ctx is cancelled.
func (x *execution) all(ctx context.Context, steps []Step) error {
	x.first = len(x.run.result.Steps)
	for i, s := range steps {
		if err := ctx.Err(); err != nil {
			return x.run.interrupted(err, steps[i:])
		}
		err := x.one(ctx, s)
		switch {
		case err != nil && ctx.Err() != nil:
			// What was cut off has not failed.
			return errors.Join(x.run.interrupted(ctx.Err(), steps[i:]), err)
		case err != nil:
			x.broke = err
			return err
		}
		x.did = append(x.did, s)
	}
	return nil
}

// one executes a step and notes what came of it.
func (x *execution) one(ctx context.Context, s Step) error {
	e := x.run.e
	e.tell(Event{Machine: x.run.name, Step: string(s.Kind), Message: s.begins()})
	began := e.cfg.Now()
	err := x.do(ctx, s)
	took := e.cfg.Now().Sub(began)
	if err != nil || s.Kind != StepStart {
		x.began = nil
	}
	if err != nil {
		err = x.failure(s, err)
		e.tell(Event{Machine: x.run.name, Step: string(s.Kind), Message: s.String() + " failed", Err: err})
	}
	x.run.result.Steps = append(x.run.result.Steps, StepResult{Step: s, Took: took, Err: err})
	return err
}

// failure names the machine, unless the error does so already.
func (x *execution) failure(s Step, err error) error {
	var life *driver.LifecycleError
	var own *Error
	if errors.As(err, &life) || errors.As(err, &own) {
		return err
	}
	return &Error{Object: "vm/" + x.run.name, Op: s.String() + " of", Err: err}
}

// do executes a step. Short ones are seen to their end whatever happens to ctx;
// those that work on images can be cancelled.
func (x *execution) do(ctx context.Context, s Step) error {
	name, ports := x.run.name, x.run.e.cfg.Ports
	brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.briefly())
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, x.imaging())
	defer stop()
	switch s.Kind {
	case StepRecordEnd:
		return x.recordEnd(brief)
	case StepIdentity:
		id, err := ports.Records.EnsureIdentity(brief, x.want.vm())
		if err == nil {
			x.want.Machine.UID = id.UID
		}
		return err
	case StepCreateDisk, StepSetAside, StepGrowDisk:
		return x.workOnDisk(ctx, s)
	case StepThrottleDisk:
		return ports.Storage.ThrottleDisk(brief, x.want.vm(), s.Disk)
	case StepPlug, StepUnplug, StepDrop, StepMedium, StepAddCPUs, StepForward:
		return x.plug(brief, s)
	case StepStart:
		return x.start(ctx, s)
	case StepAgentShutdown, StepPowerdown, StepQuit, StepKill:
		return x.stop(brief, s)
	case StepThaw:
		return ports.Agent.Thaw(brief, name)
	case StepPause, StepResume:
		return ports.Power.SetPaused(brief, name, s.Kind == StepPause)
	case StepClearIntent:
		return ports.Records.WriteIntent(brief, name, nil)
	case StepTakeSnapshot:
		return x.takeSnapshot(ctx, s)
	case StepFinishSnapshot:
		return x.finishSnapshot(ctx, s)
	case StepLoadSnapshot, StepFinishLoad, StepFailRestore, StepRevertDisks, StepEndRestore:
		return x.restore(ctx, brief, s)
	case StepScheduleSnapshot, StepExpireSnapshot:
		return x.schedule(brief, s)
	case StepDeleteSnapshot:
		return ports.Snapshots.DeleteSnapshot(ctx, x.want.vm(), x.obs, s.Snapshot)
	case StepForget:
		return x.forget(ctx, s)
	case StepForgetSnapshot:
		return x.forgetSnapshot(brief, s.Snapshot)
	case StepEndHold:
		return x.endHold(brief)
	default:
		return errors.New("this maqet does not know the step " + string(s.Kind))
	}
}

// briefly bounds a step that only sends something.
func (x *execution) briefly() time.Duration {
	t := x.run.e.cfg.Timing
	return t.Lock + t.Greeting + t.Query
}

// imaging bounds a step that works on images.
func (x *execution) imaging() time.Duration {
	t := x.run.e.cfg.Timing
	return x.briefly() + t.Image + t.Snapshot
}

// recordEnd writes down how the process ended before what tells of it is cleared.
func (x *execution) recordEnd(ctx context.Context) error {
	note := func(m *state.Machine) { ended(m, terminationOf(m, &x.obs), x.run.opt) }
	if err := x.run.update(ctx, note); err != nil {
		return err
	}
	note(x.want.Machine)
	return x.run.e.cfg.Ports.Records.ClearRun(ctx, x.run.name)
}

// workOnDisk executes the steps that change a disk's image.
func (x *execution) workOnDisk(ctx context.Context, s Step) error {
	if s.Kind == StepCreateDisk {
		return x.createDisk(ctx, s)
	}
	if s.Kind == StepSetAside {
		return x.setAside(ctx, s)
	}
	return x.run.e.cfg.Ports.Storage.GrowDisk(ctx, x.want.vm(), x.obs, s.Disk)
}

// createDisk makes a disk, and ends the word that it shall be made anew.
func (x *execution) createDisk(ctx context.Context, s Step) error {
	ports := x.run.e.cfg.Ports
	var err error
	if s.Image == "" {
		err = ports.Storage.CreateDisk(ctx, x.want.vm(), s.Disk)
	} else {
		err = ports.Overlays.CreateOverlay(ctx, x.want.vm(), s.Disk, x.obs.Images[s.Image])
	}
	if _, said := x.want.Machine.Recreate[s.Disk]; err != nil || !said {
		return err
	}
	note := func(m *state.Machine) {
		m.Recreate = maps.Clone(m.Recreate)
		delete(m.Recreate, s.Disk)
	}
	note(x.want.Machine)
	return x.run.update(context.WithoutCancel(ctx), note)
}

// setAside moves a disk away, and keeps in mind where to.
func (x *execution) setAside(ctx context.Context, s Step) error {
	at, err := x.run.e.cfg.Ports.Overlays.SetAside(ctx, x.want.vm(), s.Disk)
	if err == nil {
		if x.aside == nil {
			x.aside = map[string]string{}
		}
		x.aside[s.Disk] = at
	}
	return err
}

func (x *execution) start(ctx context.Context, s Step) error {
	e := x.run.e
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Timing.Start+x.briefly())
	defer cancel()
	if s.Snapshot != "" {
		return x.startFrom(ctx, s, s.from(&x.obs))
	}
	at := e.cfg.Now()
	began, err := e.cfg.Ports.Power.Start(ctx, driver.StartRequest{
		VM: x.want.vm(), Generation: x.want.Machine.Generation, Paused: s.Paused,
	})
	if err != nil {
		x.refused(at, err)
		return err
	}
	x.began = began
	started(x.want.Machine, "")
	if !x.run.opt.Supervise {
		// A person wants it to run, whatever was before.
		forgive(x.want.Machine)
	}
	return nil
}

// refused counts a QEMU that did not come up: it left nothing behind by which a
// later look would know of it.
func (x *execution) refused(at time.Time, err error) {
	var failed *driver.StartError
	if !errors.As(err, &failed) {
		return // No QEMU was run.
	}
	e, m := x.run.e, x.want.Machine
	ended(m, &state.Termination{
		Cause: driver.EndStartFailed, At: e.cfg.Now(), Boot: e.cfg.BootID, Exit: failed.Exit, LastLine: failed.LastLine,
		StartedAt: at, Generation: m.Generation,
	}, x.run.opt)
}

// stop writes the stage with its deadline before it is begun, so that whoever
// comes after a crash knows both.
func (x *execution) stop(ctx context.Context, s Step) error {
	name, power := x.run.name, x.run.e.cfg.Ports.Power
	if err := x.run.e.cfg.Ports.Records.WriteIntent(ctx, name, s.Intent); err != nil {
		return err
	}
	switch s.Kind { //nolint:exhaustive // the others do not stop
	case StepAgentShutdown:
		return x.askAgent(ctx, s)
	case StepPowerdown:
		return power.Powerdown(ctx, name)
	case StepQuit:
		return power.Quit(ctx, name)
	default:
		return power.Kill(ctx, name)
	}
}

// askAgent asks the guest's agent. That it cannot be asked is no failure of the stop:
// the stage is over then, and the next one says why.
func (x *execution) askAgent(ctx context.Context, s Step) error {
	ports := x.run.e.cfg.Ports
	err := ports.Agent.AgentShutdown(ctx, x.run.name)
	if err == nil {
		return nil
	}
	x.declined = err.Error()
	if life, ok := errors.AsType[*driver.LifecycleError](err); ok {
		x.declined = life.Err.Error()
	}
	in := *s.Intent
	in.Deadline, in.Failed = x.run.e.cfg.Now(), x.declined
	return ports.Records.WriteIntent(ctx, x.run.name, &in)
}

func (x *execution) takeSnapshot(ctx context.Context, s Step) error {
	ports := x.run.e.cfg.Ports
	calmly := context.WithoutCancel(ctx)
	if s.Intent != nil {
		if err := ports.Records.WriteIntent(ctx, x.run.name, s.Intent); err != nil {
			return err
		}
	}
	err := ports.Snapshots.TakeSnapshot(ctx, x.want.vm(), x.obs, s.request())
	switch {
	case err == nil && s.Intent != nil:
		// Only begun: its job's end tells whether it succeeded.
		return nil
	case err == nil:
		return x.snapshotTaken(calmly, s.Snapshot)
	case s.Intent != nil:
		err = errors.Join(err, ports.Records.WriteIntent(calmly, x.run.name, nil))
	}
	return x.snapshotFailed(ctx, s.Snapshot, err)
}

func (x *execution) finishSnapshot(ctx context.Context, s Step) error {
	calmly := context.WithoutCancel(ctx)
	ports := x.run.e.cfg.Ports
	finished := ports.Snapshots.FinishSnapshot(ctx, x.want.vm(), x.obs, s.request())
	if s.Intent != nil && ctx.Err() == nil {
		if err := ports.Records.WriteIntent(calmly, x.run.name, nil); err != nil {
			return errors.Join(finished, err)
		}
	}
	if finished != nil {
		return x.snapshotFailed(ctx, s.Snapshot, finished)
	}
	return x.snapshotTaken(calmly, s.Snapshot)
}

func (x *execution) snapshotTaken(ctx context.Context, tag string) error {
	uid, now := machineUID(x.want.Machine, &x.obs), x.run.e.cfg.Now()
	if s := x.want.snapshot(tag); s != nil {
		taken(s, uid, now)
	}
	return x.run.updateSnapshot(ctx, tag, func(s *state.Snapshot) { taken(s, uid, now) })
}

// snapshotFailed remembers the failure, so that it is not tried again and
// again; an interrupted snapshot has not failed.
func (x *execution) snapshotFailed(ctx context.Context, tag string, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	if s := x.want.snapshot(tag); s != nil {
		s.Failed = cause.Error()
	}
	err := x.run.updateSnapshot(context.WithoutCancel(ctx), tag, func(s *state.Snapshot) { s.Failed = cause.Error() })
	return errors.Join(cause, err)
}

// forget removes files first: a record without files is deleted again, files
// without a record would be nobody's.
func (x *execution) forget(ctx context.Context, s Step) error {
	e := x.run.e
	moving, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.imaging())
	defer cancel()
	kept, err := e.cfg.Ports.Records.Forget(moving, x.run.name, s.DeleteDisks)
	if err != nil {
		return err
	}
	writing, stop := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Timing.Lock)
	defer stop()
	err = e.cfg.Store.Update(writing, func(tx Tx) error {
		snaps, err := tx.SnapshotsOf(x.run.name)
		if err != nil {
			return err
		}
		for _, s := range snaps {
			if err := tx.DeleteSnapshot(s.Object.Metadata.Name); err != nil {
				return err
			}
		}
		return tx.DeleteMachine(x.run.name)
	})
	if err != nil {
		return x.run.recordError(err)
	}
	x.run.result.KeptAt = kept
	*x.want = Desired{}
	x.noteForgotten(s, kept)
	return nil
}

// noteForgotten tells of a delete, which no later look at the machine confirms.
func (x *execution) noteForgotten(s Step, kept string) {
	// Neither does one confirm what was done before it.
	for _, done := range x.did {
		if message, ok := done.seen(x.obs); ok || done.Kind == StepRecordEnd {
			x.stepHappened(done, message)
		}
	}
	message := "deleted"
	switch {
	case kept != "":
		message += "; its disks are in " + kept
	case s.DeleteDisks:
		message += " with its disks"
	}
	x.stepHappened(s, message)
	x.run.e.tell(Event{Machine: x.run.name, Step: string(StepForget), Message: message, Done: true})
}

func (x *execution) forgetSnapshot(ctx context.Context, tag string) error {
	err := x.run.e.cfg.Store.Update(ctx, func(tx Tx) error { return tx.DeleteSnapshot(tag) })
	if err != nil {
		return x.run.recordError(err)
	}
	x.want.Snapshots = slices.DeleteFunc(x.want.Snapshots, func(s *state.Snapshot) bool { return s.Object.Metadata.Name == tag })
	return nil
}

// endHold removes the hold that was planned for, not one that came since.
func (x *execution) endHold(ctx context.Context) error {
	over := *x.want.Machine.Hold
	x.want.Machine.Hold = nil
	return x.run.update(ctx, func(m *state.Machine) {
		if m.Hold != nil && m.Hold.Since.Equal(over.Since) && m.Hold.Generation == over.Generation {
			m.Hold = nil
		}
	})
}
