package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Inventory looks after the images in the state dir, whoever knows of them.
type Inventory interface {
	// StoredDisks are all of them.
	StoredDisks(ctx context.Context) ([]driver.StoredDisk, error)
	// StoredNeeds are what needs each of the stored disks, by its path; named are the
	// images that machines name themselves, by path.
	StoredNeeds(ctx context.Context, stored []driver.StoredDisk, named map[string]driver.Need) (map[string][]driver.Need, error)
	// StoredUID is the uuid in the identity of a kept folder; empty without one.
	StoredUID(ref driver.StoredRef) (string, error)
	// DeleteStored deletes a disk or a kept folder, unless a process has it open.
	DeleteStored(ctx context.Context, ref driver.StoredRef) error
	// AdoptFolder makes a kept folder that of a machine which has none.
	AdoptFolder(ctx context.Context, ref driver.StoredRef, vm string) error
	// AdoptDisk moves a disk to a machine, under a name that none of its disks has.
	AdoptDisk(ctx context.Context, ref driver.StoredRef, vm, as string) error
}

// DiskEntry is one disk of one machine.
type DiskEntry struct {
	Machine string `json:"machine"`
	Disk    string `json:"disk"`
	// Kind is the kind of storage, such as qcow2 or nbd; cdrom for an empty drive.
	Kind   string `json:"kind"`
	Format string `json:"format,omitempty"`
	// Size and Allocated are in bytes; 0 where they are not known.
	Size      int64 `json:"size,omitempty"`
	Allocated int64 `json:"allocated,omitempty"`
	// PID is the QEMU that has the disk; 0 when none has.
	PID  int    `json:"pid,omitempty"`
	Path string `json:"path,omitempty"`
	Err  string `json:"error,omitempty"`
}

// Disks are the disks of all machines, in the order of their names.
func (e *Engine) Disks(ctx context.Context) ([]DiskEntry, error) {
	views, err := e.Views(ctx, nil, driver.DepthFull)
	if err != nil {
		return nil, err
	}
	all := []DiskEntry{}
	for i := range views {
		v := &views[i]
		for j := range v.Machine.Object.Spec.Disks {
			all = append(all, entryOf(v, &v.Machine.Object.Spec.Disks[j]))
		}
	}
	slices.SortStableFunc(all, func(a, b DiskEntry) int { return strings.Compare(a.Machine, b.Machine) })
	return all, nil
}

func entryOf(v *View, d *manifest.Disk) DiskEntry {
	f := v.Observed.Files[d.Name]
	entry := DiskEntry{
		Machine: v.Machine.Object.Metadata.Name, Disk: d.Name, Kind: f.Kind, Format: string(d.Format),
		Size: imageSize(&v.Observed, d.Name), Allocated: f.Allocated, Path: f.Path, Err: f.Err,
	}
	if d.IsEmpty() {
		entry.Kind = "empty"
	}
	if entry.Err == "" && !d.IsEmpty() && !f.Exists {
		entry.Err = "not there"
	}
	if g := v.Observed.Guest; g != nil && slices.ContainsFunc(g.Disks, func(x driver.GDisk) bool { return x.Name == d.Name }) {
		entry.PID = v.Observed.PID
	}
	return entry
}

// Orphans are the stored disks that no machine wants: those kept of deleted machines,
// and those in a machine's folder that its manifest does not name. One that a snapshot,
// another disk or another machine needs is none.
func (e *Engine) Orphans(ctx context.Context) ([]driver.StoredDisk, error) {
	w, err := e.wanted(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(w.stored, func(d driver.StoredDisk) bool {
		return w.named[d.Name()] || w.need(d, driver.StoredRef{Folder: d.Folder}) != nil
	}), nil
}

// wantedDisks are the stored disks and what wants them.
type wantedDisks struct {
	stored []driver.StoredDisk
	// named are the disks that the manifests of machines name, as StoredDisk does,
	// snapshots the snapshots that are remembered, as machine/tag.
	named, snapshots map[string]bool
	needs            map[string][]driver.Need
}

// wanted looks what wants the stored disks. The records are read after the files, so
// that a machine made meanwhile counts.
func (e *Engine) wanted(ctx context.Context) (*wantedDisks, error) {
	w := &wantedDisks{named: map[string]bool{}, snapshots: map[string]bool{}}
	var err error
	if w.stored, err = e.cfg.Ports.Inventory.StoredDisks(ctx); err != nil {
		return nil, err
	}
	all, err := e.desiredAll(ctx, nil)
	if err != nil {
		return nil, err
	}
	files := map[string]driver.Need{}
	for _, want := range all {
		vm := want.Machine.Object.Metadata.Name
		for _, s := range want.Snapshots {
			w.snapshots[vm+"/"+s.Object.Metadata.Name] = true
		}
		for _, d := range want.Machine.Object.Spec.Disks {
			switch {
			case d.File != "":
				// Where two say different formats, what the file may read from counts.
				if old, taken := files[d.File]; taken && !old.Raw {
					continue
				}
				files[d.File] = driver.Need{Folder: vm, By: "disk " + d.Name + " of machine " + vm, Raw: d.Format == manifest.FormatRaw}
			case d.NBD == nil:
				// One that names its own source has no image here, but its name may be in use again.
				w.named[vm+"/"+d.Name] = true
			}
		}
	}
	w.needs, err = e.cfg.Ports.Inventory.StoredNeeds(ctx, w.stored, files)
	return w, err
}

// need is what needs a stored disk that ref names; nil for nothing. What is in a kept
// folder needs no part of it when the whole folder is meant. Snapshots that nobody
// remembers, and kept ones, need nothing: they are as orphaned as the disk.
func (w *wantedDisks) need(d driver.StoredDisk, ref driver.StoredRef) *driver.Need {
	for _, n := range w.needs[d.Path] {
		switch {
		case n.Snapshot != "" && !w.snapshots[n.Folder+"/"+n.Snapshot]:
		case n.Folder == ref.Folder && ref.Disk == "" && ref.IsKept():
		default:
			return &n
		}
	}
	return nil
}

// DeleteOrphan deletes a stored disk that no machine wants, or a kept folder with all
// that is in it, while no other process may act on the machine of that folder.
func (e *Engine) DeleteOrphan(ctx context.Context, ref driver.StoredRef) error {
	const op = opDelete
	unlock, err := e.lock(ctx, folderName(ref))
	if err != nil {
		return err
	}
	defer unlock()
	if err := e.orphan(ctx, op, ref); err != nil {
		return err
	}
	if err := e.cfg.Ports.Inventory.DeleteStored(ctx, ref); err != nil {
		return &Error{Object: "disk " + ref.String(), Op: op, Err: err}
	}
	e.journal(ctx, []state.Event{e.event(folderName(ref), 0, state.EventNormal, state.EventDiskDeleted, "disk "+ref.String()+" is deleted")})
	return nil
}

// opDelete is the deletion of a disk, in errors.
const opDelete = "delete"

// folderName is the folder without where it is.
func folderName(ref driver.StoredRef) string {
	return strings.TrimPrefix(ref.Folder, driver.KeptPrefix)
}

// allRecords refuses while records are lost: what their machines want is not known.
func (e *Engine) allRecords(ctx context.Context, op string, ref driver.StoredRef) error {
	var lost []error
	err := e.cfg.Store.View(ctx, func(tx Tx) error {
		lost = tx.Warnings()
		return nil
	})
	if err != nil || len(lost) == 0 {
		return err
	}
	return &Error{
		Object: "disk " + ref.String(), Op: op, Err: errors.Join(lost...), Detail: "a machine whose record is lost may want it",
		Hint: "apply all manifests again first",
	}
}

// orphan refuses what a machine wants or a process has open, and what is not there.
func (e *Engine) orphan(ctx context.Context, op string, ref driver.StoredRef) error {
	if op == opDelete || !ref.IsKept() {
		if err := e.allRecords(ctx, op, ref); err != nil {
			return err
		}
	}
	w, err := e.wanted(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, d := range w.stored {
		if !ref.Matches(d) {
			continue
		}
		refused := &Error{Object: "disk " + d.Name(), Op: op, Err: ErrInUse}
		need := w.need(d, ref)
		switch {
		case w.named[d.Name()]:
			refused.Detail = "machine " + d.Folder + " wants it"
			refused.Hint = "remove it from the machine's manifest and apply that first"
			return refused
		case need != nil && need.Snapshot != "":
			refused.Detail, refused.Hint = "it is part of "+need.By, "delete that first with: maqet snapshot delete "+need.Folder+" "+need.Snapshot
			return refused
		case need != nil:
			refused.Detail, refused.Hint = need.By+" reads from it", "see to that first"
			return refused
		case len(d.UsedBy) > 0:
			refused.Detail, refused.Hint = "by "+strings.Join(d.UsedBy, ", "), "stop what uses it first"
			return refused
		}
		found = true
	}
	if !found && ref.Disk == "" && ref.IsKept() {
		// A TPM or an NVRAM alone is worth keeping, too.
		uid, err := e.cfg.Ports.Inventory.StoredUID(ref)
		if err != nil {
			return &Error{Object: "disk " + ref.String(), Op: op, Err: err}
		}
		found = uid != ""
	}
	if !found {
		return &Error{Object: "disk " + ref.String(), Op: op, Err: ErrNotFound, Hint: "see what there is with: maqet disk orphans"}
	}
	return nil
}

// Adopt gives a kept folder to a machine that has no disks yet, or one stored disk to a
// machine under a name that none of its disks has.
func (e *Engine) Adopt(ctx context.Context, ref driver.StoredRef, vm, as string) error {
	const op = "adopt"
	object := "disk " + ref.String()
	// Whose disk it is may be about to be started, and the disk to be deleted. All take
	// locks in the same order, so that two never wait for each other.
	names := []string{vm, folderName(ref)}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		unlock, err := e.lock(ctx, name)
		if err != nil {
			return err
		}
		defer unlock()
	}
	err := e.orphan(ctx, op, ref)
	if err != nil {
		return err
	}
	message := fmt.Sprintf("%s is disk %s now", ref, as)
	if ref.Disk == "" {
		message = "its disks and identity are those of " + ref.Folder
		err = e.adoptable(ctx, ref, vm)
		if err == nil {
			err = e.cfg.Ports.Inventory.AdoptFolder(ctx, ref, vm)
		}
	} else {
		err = e.cfg.Ports.Inventory.AdoptDisk(ctx, ref, vm, as)
	}
	if err != nil {
		return &Error{Object: object, Op: op, Err: err}
	}
	e.journal(ctx, []state.Event{e.event(vm, 0, state.EventNormal, state.EventDiskAdopted, message)})
	return nil
}

// adoptable refuses to give a machine that has run another identity than its own.
func (e *Engine) adoptable(ctx context.Context, ref driver.StoredRef, vm string) error {
	want, err := e.desired(ctx, vm)
	if err != nil || want.Machine == nil || want.Machine.UID == "" {
		return err
	}
	uid, err := e.cfg.Ports.Inventory.StoredUID(ref)
	if err != nil {
		return err
	}
	if uid != want.Machine.UID {
		return fmt.Errorf("machine %s has run with the uuid %s, and the identity in %s is another's; adopt single disks instead", vm, want.Machine.UID, ref.Folder)
	}
	return nil
}
