package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Copier copies disks of snapshots, beside a QEMU that has them open. Told hears how far
// it is, in percent.
type Copier interface {
	// CloneSnapshot makes disks and identity of a new machine, in nobody's sight.
	CloneSnapshot(ctx context.Context, req driver.CloneRequest, told func(percent float64)) (driver.Clone, error)
	// ExportSnapshot writes disks into files of their own, all or none.
	ExportSnapshot(ctx context.Context, req driver.ExportRequest, told func(percent float64)) ([]driver.CopiedDisk, error)
	// Works are the long work of processes outside of QEMU.
	Works(ctx context.Context) ([]driver.Work, error)
}

// CloneRequest is a new machine made of a snapshot.
type CloneRequest struct {
	VM, Name, New string
	// Told hears how far it is, in percent.
	Told func(percent float64)
}

// CloneReport is what was made.
type CloneReport struct {
	// VM is the manifest of the new machine. Nothing is known of it before it is applied.
	VM *manifest.VirtualMachine
	// Notes say what it does not share with the old one, and what a person has to see to.
	Notes []string
	Disks []driver.CopiedDisk
	UID   string
}

// ExportRequest is files made of a snapshot.
type ExportRequest struct {
	VM, Name string
	// Disks are those to export; none is all of the snapshot.
	Disks []string
	// To is a folder, or with one disk the file to make.
	To     string
	Folder bool
	// Format is qcow2 or raw; Compress compresses a qcow2.
	Format   manifest.DiskFormat
	Compress bool
	Told     func(percent float64)
}

// snapshotToCopy is a snapshot that is whole.
type snapshotToCopy struct {
	vm    *manifest.VirtualMachine
	gen   int64
	id    *driver.Identity
	disks []string
}

// toCopy finds a snapshot and refuses one that is not whole. It needs no lock: whoever
// copies finds out whether the snapshot has gone meanwhile.
func (e *Engine) toCopy(ctx context.Context, op, name, tag string) (*snapshotToCopy, error) {
	want, err := e.desired(ctx, name)
	if err != nil {
		return nil, err
	}
	if want.Machine == nil {
		return nil, notFound(op, name)
	}
	refuse := func(detail, hint string) error {
		return &Error{Object: "vm/" + name, Op: op + " snapshot " + tag + " of", Err: ErrProblem, Detail: detail, Hint: hint}
	}
	obs := e.cfg.Ports.Observer.Observe(ctx, name, want.vm(), driver.DepthFull)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case obs.Presence != driver.Alive && obs.Presence != driver.Absent:
		return nil, refuse(string(obs.Presence)+": "+obs.Message, cmp.Or(obs.Hint, "see maqet describe "+name))
	case !obs.SnapshotsKnown:
		return nil, refuse("the disks could not be asked for their snapshots", "see maqet disk list")
	}
	found, exists := obs.Snapshots[tag]
	if !exists {
		return nil, &Error{Object: "snap/" + tag, Op: op, Err: ErrNotFound, Detail: "of vm/" + name, Hint: "see maqet snapshot list " + name}
	}
	disks := found.Disks
	if found.Record != nil {
		disks = found.Record.Disks
	}
	for _, disk := range disks {
		if !slices.Contains(found.Disks, disk) {
			return nil, refuse("it is not on disk "+disk, "see maqet snapshot list "+name)
		}
	}
	if in := obs.Intent; in != nil && in.Snapshot != nil && in.Snapshot.Tag == tag && in.Kind != driver.IntentRestore {
		return nil, refuse("it is still being taken", "see maqet jobs "+name)
	}
	return &snapshotToCopy{vm: want.vm(), gen: want.Machine.Generation, id: obs.Identity, disks: slices.Sorted(slices.Values(disks))}, nil
}

// CloneSnapshot makes a new machine of a snapshot: its disks and its identity, and the
// manifest that describes it, which is for a person to keep and to apply. The old machine
// may run and goes on undisturbed.
func (e *Engine) CloneSnapshot(ctx context.Context, req CloneRequest) (CloneReport, error) {
	const op = "clone"
	if err := e.newName(ctx, op, req.New); err != nil {
		return CloneReport{}, err
	}
	from, err := e.toCopy(ctx, op, req.VM, req.Name)
	if err != nil {
		return CloneReport{}, err
	}
	vm, copied, notes := cloned(from.vm, req.New, req.Name, from.disks)
	made, err := e.cfg.Ports.Copier.CloneSnapshot(ctx, driver.CloneRequest{
		VM: from.vm, Identity: from.id, Tag: req.Name, Disks: copied, New: req.New,
	}, told(req.Told))
	if err != nil {
		return CloneReport{}, copyFailed(ctx, op, req.VM, err)
	}
	defer made.Discard()
	sizeClone(vm, made.Disks)
	if err := e.placeClone(ctx, op, req.New, made); err != nil {
		return CloneReport{}, copyFailed(ctx, op, req.VM, err)
	}
	e.journal(context.WithoutCancel(ctx), []state.Event{
		e.event(req.VM, from.gen, state.EventNormal, state.EventCloned, "snapshot "+req.Name+" is cloned to machine "+req.New),
		e.event(req.New, 0, state.EventNormal, state.EventCloned, "made of snapshot "+req.Name+" of machine "+req.VM),
	})
	return CloneReport{VM: vm, Notes: notes, Disks: made.Disks, UID: made.UID}, nil
}

// newName refuses a name that a machine has.
func (e *Engine) newName(ctx context.Context, op, name string) error {
	want, err := e.desired(ctx, name)
	if err != nil || want.Machine == nil {
		return err
	}
	return &Error{Object: "vm/" + name, Op: op + " to", Err: ErrExists, Detail: "it comes from " + cmp.Or(want.Machine.Source, want.Machine.Owner), Hint: "take another name"}
}

// placeClone makes the clone visible, unless somebody else has made a machine of that
// name meanwhile.
func (e *Engine) placeClone(ctx context.Context, op, name string, made driver.Clone) error {
	unlock, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := e.newName(ctx, op, name); err != nil {
		return err
	}
	return made.Place(ctx)
}

// ExportSnapshot writes the disks of a snapshot into files that are complete in
// themselves. The machine may run and goes on undisturbed.
func (e *Engine) ExportSnapshot(ctx context.Context, req ExportRequest) ([]driver.CopiedDisk, error) {
	const op = "export"
	from, err := e.toCopy(ctx, op, req.VM, req.Name)
	if err != nil {
		return nil, err
	}
	disks := from.disks
	if len(req.Disks) > 0 {
		disks = slices.Compact(slices.Sorted(slices.Values(req.Disks)))
	}
	for _, disk := range disks {
		if !slices.Contains(from.disks, disk) {
			return nil, &Error{
				Object: "disk " + disk, Op: op, Err: ErrNotFound, Detail: "in snapshot " + req.Name + " of vm/" + req.VM,
				Hint: "it has " + strings.Join(from.disks, ", "),
			}
		}
	}
	if !req.Folder && len(disks) != 1 {
		return nil, &Error{
			Object: "vm/" + req.VM, Op: op, Err: ErrAmbiguous, Detail: fmt.Sprintf("%s is one file, and the snapshot has %d disks", req.To, len(disks)),
			Hint: "name a folder that is there, or one disk with --disk: " + strings.Join(disks, ", "),
		}
	}
	files := map[string]string{}
	for _, disk := range disks {
		files[disk] = req.To
		if req.Folder {
			// Names of machines and snapshots have no dot, so that no two come out alike.
			files[disk] = filepath.Join(req.To, req.VM+"."+req.Name+"."+disk+"."+string(req.Format))
		}
	}
	copied, err := e.cfg.Ports.Copier.ExportSnapshot(ctx, driver.ExportRequest{
		VM: from.vm, Identity: from.id, Tag: req.Name, Files: files, Format: req.Format, Compress: req.Compress,
	}, told(req.Told))
	if err != nil {
		return nil, copyFailed(ctx, op, req.VM, err)
	}
	e.journal(context.WithoutCancel(ctx), []state.Event{
		e.event(req.VM, from.gen, state.EventNormal, state.EventExported, "snapshot "+req.Name+" is exported to "+req.To),
	})
	return copied, nil
}

func told(f func(float64)) func(float64) {
	if f == nil {
		return func(float64) {}
	}
	return f
}

// copyFailed says that nothing was made when somebody has interrupted it.
func copyFailed(ctx context.Context, op, vm string, err error) error {
	if ctx.Err() == nil || errors.Is(err, ErrInterrupted) {
		return err
	}
	why := ErrInterrupted
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why = ErrTimedOut
	}
	return &Error{Object: "vm/" + vm, Op: op, Err: errors.Join(why, err), Detail: "nothing was made", Hint: "ask again"}
}

// Works are the long work that processes of this host do outside of QEMU.
func (e *Engine) Works(ctx context.Context) ([]driver.Work, error) {
	return e.cfg.Ports.Copier.Works(ctx)
}

// notCopied refuses to delete a snapshot that somebody is copying, who would find that
// out at the end of a long time.
func (e *Engine) notCopied(ctx context.Context, vm, tag string) error {
	if e.cfg.Ports.Copier == nil {
		return nil
	}
	works, err := e.Works(ctx)
	if err != nil {
		return err
	}
	for _, w := range works {
		if w.VM == vm && w.Snapshot == tag {
			return &Error{
				Object: "snap/" + tag, Op: "delete", Err: ErrInUse, Detail: fmt.Sprintf("a %s to %s reads it, by %s", w.Kind, w.To, w.Who),
				Hint: "wait until that is over: maqet jobs " + vm,
			}
		}
	}
	return nil
}
