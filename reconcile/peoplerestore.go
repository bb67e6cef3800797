package reconcile

import (
	"cmp"
	"context"
	"errors"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// RestoreSnapshot sets a machine back to a snapshot and returns when that is seen to
// be so. What the machine is now goes into a safety snapshot before, if one is asked
// for. An interrupted restore is gone on with by whoever converges the machine next;
// asking for another power state gives it up.
func (e *Engine) RestoreSnapshot(ctx context.Context, req RestoreRequest) (Result, error) {
	failed := Result{Machine: req.VM}
	want, err := e.actable(ctx, "restore", req.VM)
	if err != nil {
		return failed, err
	}
	obs := e.cfg.Ports.Observer.Observe(ctx, req.VM, want.vm(), driver.DepthFull)
	memory, err := restorable(req, obs)
	if err != nil {
		return failed, err
	}
	if req.Safety != "" {
		_, err := e.CreateSnapshot(ctx, SnapshotRequest{VM: req.VM, Name: req.Safety, Options: req.Options})
		if err != nil {
			return failed, &Error{
				Object: "vm/" + req.VM, Op: "restore", Err: err, Detail: "the safety snapshot could not be taken, so nothing was restored",
				Hint: "see to its cause, or say --no-safety",
			}
		}
	}
	happened, err := e.change(ctx, "restore", req.VM, func(m *state.Machine) error {
		if err := notDeleting("restore", m); err != nil {
			return err
		}
		if memory && EffectivePower(m, e.cfg.Now()) == manifest.PowerStopped {
			// A guest with its memory is one that is on.
			m.Hold = e.powerHold(m, PowerRequest{PowerState: manifest.PowerRunning, Why: "restored snapshot " + req.Name})
		}
		m.Restore = &state.Restore{Snapshot: req.Name, Since: e.cfg.Now(), Who: e.cfg.Who, DisksOnly: req.DisksOnly}
		return nil
	})
	if err != nil {
		return failed, err
	}
	result, err := e.convergeDue(ctx, req.VM, req.Options, happened)
	result.HoldAsked = true
	if err == nil {
		result.Err = result.restored(req.Name)
	}
	return result, result.Err
}

// restorable refuses what cannot be restored, before anything is done. Memory tells
// that the snapshot's is to be loaded.
func restorable(req RestoreRequest, obs driver.Observed) (memory bool, err error) {
	refuse := func(cause error, detail, hint string) error {
		return &Error{Object: "vm/" + req.VM, Op: "restore snapshot " + req.Name + " of", Err: cause, Detail: detail, Hint: hint}
	}
	if obs.Presence != driver.Alive && obs.Presence != driver.Absent {
		return false, refuse(ErrProblem, string(obs.Presence)+": "+obs.Message, cmp.Or(obs.Hint, "see maqet describe "+req.VM))
	}
	if !obs.SnapshotsKnown {
		return false, refuse(ErrProblem, "the disks could not be asked for their snapshots", "see whether the images can be read")
	}
	found, exists := obs.Snapshots[req.Name]
	if !exists {
		return false, &Error{
			Object: "snap/" + req.Name, Op: "restore", Err: ErrNotFound, Detail: "of vm/" + req.VM, Hint: "see maqet snapshot list " + req.VM,
		}
	}
	memory = found.VMStateSize > 0 && !req.DisksOnly
	switch {
	case memory && (found.Record == nil || found.Record.Launched == nil):
		return false, refuse(ErrProblem, "maqet did not take it, so it is not known which devices its memory is for",
			"set only the disks back with --disks-only")
	case memory && found.Record.Method != manifest.SnapshotFull:
		return false, refuse(ErrProblem, "its record says that it has no memory, and its disks say that it has", "set only the disks back with --disks-only")
	case !memory && obs.Presence == driver.Alive && !req.Stop:
		return false, refuse(ErrProblem, "the machine is running, and its disks cannot be set back under it",
			"say --stop, or stop it first with maqet stop "+req.VM)
	default:
		return memory, nil
	}
}

// restored is nil when the restore was seen to be done, and else why not.
func (r *Result) restored(tag string) error {
	var failure error
	for _, s := range r.Steps {
		if done := s.Kind == StepFinishLoad || s.Kind == StepRevertDisks; done && s.Err == nil {
			return r.Err
		}
		if s.Kind == StepFailRestore || s.Kind == StepEndRestore {
			failure = errors.New(s.Message)
		}
	}
	if failure == nil && len(r.Plan.Problems) > 0 {
		failure = errors.New(problemWords(r.Plan.Problems))
	}
	if failure == nil {
		failure = ErrOvertaken
	}
	return &Error{
		Object: "vm/" + r.Machine, Op: "restore snapshot " + tag + " of", Err: failure, Detail: "it is " + string(r.Status.Phase) + " now",
		Hint: "see maqet describe " + r.Machine,
	}
}
