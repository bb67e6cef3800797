package reconcile

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// OwnerCommand owns the Snapshot objects that a command made: no folder prunes them.
const OwnerCommand = "command"

// CreateSnapshot takes a snapshot now and remembers it as an object. One that
// cannot be taken is not remembered; one that was interrupted is, and goes on
// with the next convergence.
func (e *Engine) CreateSnapshot(ctx context.Context, req SnapshotRequest) (Result, error) {
	failed := Result{Machine: req.VM}
	want, err := e.actable(ctx, "take a snapshot of", req.VM)
	if err != nil {
		return failed, err
	}
	if err := manifest.ValidName(req.Name); err != nil {
		return failed, &Error{Object: "snap/" + req.Name, Op: "create", Err: err}
	}
	snap, err := e.newSnapshot(ctx, want, req)
	if err != nil {
		return failed, err
	}
	err = e.cfg.Store.Update(ctx, func(tx Tx) error {
		old, err := tx.Snapshot(req.Name)
		if err != nil {
			return err
		}
		if old != nil {
			return snapshotExists(req.Name, old.Object.Spec.VirtualMachine)
		}
		return tx.PutSnapshot(snap)
	})
	if err != nil {
		return failed, err
	}
	result, err := e.convergeDue(ctx, req.VM, req.Options, nil)
	if ctx.Err() != nil {
		return e.leftSnapshot(ctx, req, result, err)
	}
	return e.createdSnapshot(ctx, req, result, err)
}

// leftSnapshot is the end of a creation that was interrupted: the object stays,
// and whoever converges the machine next takes the snapshot or finishes it.
func (e *Engine) leftSnapshot(ctx context.Context, req SnapshotRequest, result Result, cause error) (Result, error) {
	reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Timing.Lock)
	defer cancel()
	want, err := e.desired(reading, req.VM)
	if s := want.snapshot(req.Name); err == nil && s != nil && s.TakenUID != "" {
		// It was too late to interrupt anything.
		result.Err = nil
		return result, nil
	}
	why := ErrInterrupted
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why = ErrTimedOut
	}
	result.Err = &Error{
		Object: "vm/" + req.VM, Op: "create snapshot " + req.Name + " of", Err: errors.Join(why, cause),
		Detail: "snapshot " + req.Name + " is not taken yet",
		Hint:   "apply, or maqet release " + req.VM + ", goes on with it; maqet snapshot delete " + req.VM + " " + req.Name + " gives it up",
	}
	return result, result.Err
}

func snapshotExists(name, vm string) error {
	return &Error{
		Object: "snap/" + name, Op: "create", Err: ErrExists, Detail: "of vm/" + vm,
		Hint: "take another name, or run maqet snapshot delete " + vm + " " + name,
	}
}

// runningMethod is the method for a running machine where none is said: with memory,
// unless it has a disk or a filesystem beside which QEMU cannot save that.
func runningMethod(g *driver.Guest) manifest.SnapshotMethod {
	if g == nil {
		return manifest.SnapshotFull
	}
	if len(g.Filesystems) > 0 || slices.ContainsFunc(g.Disks, func(d driver.GDisk) bool { return d.Driver == "nvme" }) {
		return manifest.SnapshotDisk
	}
	return manifest.SnapshotFull
}

// newSnapshot is the record of a snapshot to take; its method follows from
// whether the machine runs.
func (e *Engine) newSnapshot(ctx context.Context, want Desired, req SnapshotRequest) (*state.Snapshot, error) {
	obs := e.observe(ctx, req.VM, want, driver.DepthFull)
	if _, exists := obs.Snapshots[req.Name]; exists {
		return nil, snapshotExists(req.Name, req.VM)
	}
	method := req.Method
	switch {
	case obs.Presence == driver.Alive:
		method = cmp.Or(method, runningMethod(obs.Guest))
	case obs.Presence != driver.Absent:
		return nil, &Error{
			Object: "vm/" + req.VM, Op: "take a snapshot of", Err: ErrProblem,
			Detail: string(obs.Presence) + ": " + obs.Message, Hint: obs.Hint,
		}
	case method == manifest.SnapshotFull:
		return nil, &Error{
			Object: "vm/" + req.VM, Op: "take a snapshot of", Err: ErrProblem,
			Detail: "method Full saves memory, and the machine is not running", Hint: "start it, or say --method Disk",
		}
	default:
		method = manifest.SnapshotDisk
	}
	object := manifest.ResolveSnapshot(&manifest.Snapshot{
		APIVersion: manifest.APIVersion, Kind: manifest.KindSnapshot,
		Metadata: manifest.Metadata{Name: req.Name},
		Spec: manifest.SnapshotSpec{
			VirtualMachine: req.VM, Method: method, Quiesce: req.Quiesce,
			Deadline: manifest.Duration(cmp.Or(req.Deadline, e.options(req.Options).Snapshot)),
		},
	})
	whole, err := manifest.NewObject(object)
	if err != nil {
		return nil, err
	}
	return &state.Snapshot{
		Object: *object, Owner: OwnerCommand, Source: e.cfg.Who, Generation: 1, Digest: whole.Digest, Created: e.cfg.Now(),
	}, nil
}

// createdSnapshot tells whether the snapshot was taken, and forgets it if not.
func (e *Engine) createdSnapshot(ctx context.Context, req SnapshotRequest, result Result, cause error) (Result, error) {
	err := e.cfg.Store.Update(ctx, func(tx Tx) error {
		s, err := tx.Snapshot(req.Name)
		if err != nil || s == nil || s.TakenUID != "" {
			return err
		}
		if cause == nil {
			cause = &Error{
				Object: "snap/" + req.Name, Op: "create", Err: ErrProblem,
				Detail: cmp.Or(s.Failed, problemWords(result.Plan.Problems)), Hint: "see maqet describe " + req.VM,
			}
		}
		return tx.DeleteSnapshot(req.Name)
	})
	result.Err = cmp.Or(cause, err)
	return result, result.Err
}

// DeleteSnapshot deletes a snapshot's data and its object. The data may also be
// of a tag that no object wants.
func (e *Engine) DeleteSnapshot(ctx context.Context, vm, name string, opt Options) (Result, error) {
	failed := Result{Machine: vm}
	want, err := e.actable(ctx, "delete a snapshot of", vm)
	if err == nil {
		err = e.notCopied(ctx, vm, name)
	}
	if err != nil {
		return failed, err
	}
	if want.snapshot(name) == nil {
		obs := e.observe(ctx, vm, want, driver.DepthFull)
		if _, exists := obs.Snapshots[name]; !exists {
			return failed, &Error{Object: "snap/" + name, Op: "delete", Err: ErrNotFound, Detail: "of vm/" + vm, Hint: "see maqet snapshot list " + vm}
		}
	}
	err = e.cfg.Store.Update(ctx, func(tx Tx) error {
		s, err := tx.Snapshot(name)
		if err != nil {
			return err
		}
		if s == nil {
			s = &state.Snapshot{Owner: OwnerCommand, Source: e.cfg.Who, Generation: 1, Created: e.cfg.Now()}
			s.Object = *manifest.ResolveSnapshot(&manifest.Snapshot{
				APIVersion: manifest.APIVersion, Kind: manifest.KindSnapshot, Metadata: manifest.Metadata{Name: name},
				Spec: manifest.SnapshotSpec{VirtualMachine: vm},
			})
		}
		if s.Object.Spec.VirtualMachine != vm {
			return &Error{
				Object: "snap/" + name, Op: "delete", Err: ErrExists, Detail: "of vm/" + s.Object.Spec.VirtualMachine,
				Hint: "run maqet snapshot delete " + s.Object.Spec.VirtualMachine + " " + name,
			}
		}
		s.Deleting = &state.Deletion{Since: e.cfg.Now(), Who: e.cfg.Who, DeleteDisks: true}
		return tx.PutSnapshot(s)
	})
	if err != nil {
		return failed, err
	}
	return e.convergeDue(ctx, vm, opt, nil)
}
