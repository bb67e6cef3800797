package qemu

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk/backups"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

const (
	// copyBackup is the kind of the copies that backups make.
	copyBackup = "backup"
	// backupBitmap begins the names of the bitmaps of backups. The run that one counts
	// from follows, so that a bitmap can never be taken for another run's.
	backupBitmap = "maqet-backup-"
)

// isBackupBitmap tells a bitmap that maqet has made for a backup.
func isBackupBitmap(name string) bool { return strings.HasPrefix(name, backupBitmap) }

// Backup is one that goes on.
type Backup struct {
	driver *Driver
	vm     *manifest.VirtualMachine
	req    driver.BackupRequest
	folder *backups.Folder
	run    driver.BackupRun
	// copied is what QEMU does; nil for a stopped machine.
	copied *driver.Copy
	// sources are the images of a stopped machine, by disk.
	sources map[string]string
	// request is what QEMU was asked for.
	request driver.CopyRequest
	// Adopted tells that somebody else began it.
	Adopted bool
}

// LockBackups waits for no one: it gives the right to make, check or restore backups of
// a machine, which one at a time has over all processes.
func (d *Driver) LockBackups(ctx context.Context, name string) (unlock func(), err error) {
	const op = "back up"
	if err := d.usable(name); err != nil {
		return nil, fail(op, name, err, "")
	}
	lock, err := d.locks.TryLock(d.layout.BackupLock(name))
	if err != nil {
		return nil, fail(op, name, fmt.Errorf("another backup of it goes on: %w", err), "wait until it is over; maqet jobs "+name+" shows it")
	}
	return func() { _ = lock.Unlock() }, ctx.Err() // the kernel frees it all the same
}

// BeginBackup begins a backup of the machine that obs shows, or goes on with one whose
// process died. What other runs that were cut off have left is removed first. The caller
// has the machine's lock and that of its backups; of a running machine it may let the
// first go when this returns.
func (d *Driver) BeginBackup(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.BackupRequest) (driver.PendingBackup, error) {
	b, err := d.beginBackup(ctx, vm, obs, req)
	if err != nil {
		return nil, backupError(vm.Metadata.Name, err)
	}
	return b, nil
}

func (d *Driver) beginBackup(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.BackupRequest) (*Backup, error) {
	uid, err := backupUID(obs)
	if err != nil {
		return nil, err
	}
	folder, err := backups.Open(req.Target, vm.Metadata.Name, uid, req.Marker)
	if err != nil {
		return nil, err
	}
	b := &Backup{driver: d, vm: vm, req: req, folder: folder}
	if adopted, err := b.adopt(ctx, obs); err != nil || adopted {
		return b, err
	}
	if err := b.sweep(ctx, obs, uid); err != nil {
		return nil, err
	}
	if err := b.prepare(ctx, obs, uid); err != nil {
		return nil, err
	}
	if err := b.begin(ctx, obs); err != nil {
		return nil, errors.Join(err, folder.Remove(b.run.ID))
	}
	return b, nil
}

// backupUID is the machine's uuid.
func backupUID(obs driver.Observed) (string, error) {
	switch {
	case obs.Presence == driver.Alive && obs.Guest != nil && !obs.Guest.Brief:
		return obs.Guest.UID, nil
	case obs.Presence == driver.Absent && obs.Identity != nil:
		return obs.Identity.UID, nil
	case obs.Presence == driver.Absent:
		return "", errors.New("the machine has never been started, and has nothing to be backed up")
	default:
		return "", fmt.Errorf("%w: %s: %s", driver.ErrUnresponsive, obs.Presence, obs.Message)
	}
}

// prepare decides what the run holds, and how.
func (b *Backup) prepare(ctx context.Context, obs driver.Observed, uid string) error {
	runs, err := b.folder.Runs()
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	object, omitted := withoutSecrets(b.vm)
	b.run = driver.BackupRun{
		Version: driver.BackupRunVersion, ID: backups.NewRun(now), VM: b.vm.Metadata.Name, UID: uid, Type: manifest.BackupFull,
		Scheduled: b.req.Scheduled, At: now, Method: driver.BackupConvert, Consistency: ConsistencyStopped, Who: b.driver.who,
		Identity: obs.Identity, Object: *object, Omitted: omitted,
	}
	names, without := snapshotDisks(b.vm, obs)
	if len(names) == 0 {
		return errors.New("the machine has no disk that the guest writes to")
	}
	b.run.Without = without
	parent, why := b.parent(runs)
	have, err := b.bitmaps(ctx, obs, names)
	if err != nil {
		return err
	}
	for _, name := range names {
		b.run.Disks = append(b.run.Disks, b.plan(obs, name, parent, why, have))
	}
	b.settleType(parent)
	return nil
}

// parent is the run that this one may be the difference to, or why there is none.
func (b *Backup) parent(runs []driver.BackupRun) (*driver.BackupRun, string) {
	switch {
	case b.req.Why != "":
		return nil, b.req.Why
	case b.req.Mode == manifest.BackupFull:
		return nil, "mode is Full"
	case len(runs) == 0:
		return nil, "it is the first one"
	}
	last := runs[len(runs)-1]
	chain, err := backups.Chain(runs, last.ID)
	if err == nil {
		err = backups.Usable(chain)
	}
	if err != nil {
		return nil, err.Error()
	}
	return &last, ""
}

// plan says how a disk is copied.
func (b *Backup) plan(obs driver.Observed, name string, parent *driver.BackupRun, why string, have map[string]foundBitmaps) driver.BackupDisk {
	d := driver.BackupDisk{Name: name, File: backups.FileOf(name), Type: manifest.BackupFull, Why: why}
	found := have[name]
	if found.holds && b.req.Mode != manifest.BackupFull {
		d.Bitmap = backupBitmap + b.run.ID
	}
	if parent == nil {
		return d
	}
	i := slices.IndexFunc(parent.Disks, func(p driver.BackupDisk) bool { return p.Name == name })
	switch {
	case i < 0:
		d.Why = "the run before does not have this disk"
	case !found.holds:
		d.Why = "only a qcow2 remembers what has changed"
	case parent.Disks[i].Bitmap == "":
		d.Why = "nothing notes what has changed since the run before"
	case obs.Presence != driver.Alive:
		d.Why = "the machine is stopped, and qemu-img copies everything"
	default:
		d.Why = found.fault(parent.Disks[i].Bitmap)
	}
	if d.Why == "" {
		d.Type, d.Backing = manifest.BackupIncremental, "../"+parent.ID+"/"+d.File
	}
	return d
}

// settleType makes the run's type and reason of those of its disks.
func (b *Backup) settleType(parent *driver.BackupRun) {
	var reasons []string
	of := map[string][]string{}
	for _, d := range b.run.Disks {
		if d.Type == manifest.BackupIncremental {
			b.run.Type, b.run.Parent = manifest.BackupIncremental, parent.ID
			continue
		}
		if len(of[d.Why]) == 0 {
			reasons = append(reasons, d.Why)
		}
		of[d.Why] = append(of[d.Why], d.Name)
	}
	for i, why := range reasons {
		if len(of[why]) < len(b.run.Disks) {
			reasons[i] = "disk " + strings.Join(of[why], ", ") + ": " + why
		}
	}
	b.run.Why = strings.Join(reasons, "; ")
}

// foundBitmaps are the bitmaps of a disk.
type foundBitmaps struct {
	// holds tells that the disk's format can keep bitmaps.
	holds bool
	all   []driver.Bitmap
}

// fault says why a bitmap cannot tell what has changed; empty when it can.
func (f foundBitmaps) fault(name string) string {
	i := slices.IndexFunc(f.all, func(m driver.Bitmap) bool { return m.Name == name })
	switch {
	case i < 0:
		return "the bitmap of the run before is gone from the disk, as after a QEMU that was killed, or a restore"
	case f.all[i].Broken:
		return "the bitmap of the run before is broken, as after a QEMU that was killed"
	case f.all[i].Busy || !f.all[i].Recording:
		return "the bitmap of the run before does not record"
	default:
		return ""
	}
}

// bitmaps are the bitmaps of the disks.
func (b *Backup) bitmaps(ctx context.Context, obs driver.Observed, names []string) (map[string]foundBitmaps, error) {
	found := map[string]foundBitmaps{}
	if obs.Presence != driver.Alive {
		for _, name := range names {
			format := diskFormatOf(b.vm, name)
			found[name] = foundBitmaps{holds: format == manifest.FormatQcow2}
		}
		return found, nil
	}
	err := b.driver.Visit(ctx, b.vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error {
		nodes, err := namedNodes(ctx, c)
		for _, name := range names {
			n := nodes[name]
			f := foundBitmaps{holds: n.Driver == string(manifest.FormatQcow2)}
			for _, m := range n.Bitmaps {
				f.all = append(f.all, m.bitmap())
			}
			found[name] = f
		}
		return err
	})
	return found, err
}

// diskFormatOf is the format of a disk of the manifest, or of an NVRAM.
func diskFormatOf(vm *manifest.VirtualMachine, name string) manifest.DiskFormat {
	for i := range vm.Spec.Disks {
		if d := &vm.Spec.Disks[i]; d.Name == name {
			if d.NBD != nil {
				return manifest.FormatRaw
			}
			return diskFormat(d)
		}
	}
	return manifest.FormatQcow2
}

// begin makes the run's folder and has QEMU begin, or finds the images of a stopped
// machine.
func (b *Backup) begin(ctx context.Context, obs driver.Observed) error {
	dir, err := b.folder.Begin(b.run.ID)
	if err != nil {
		return err
	}
	if obs.Presence != driver.Alive {
		names := make([]string, len(b.run.Disks))
		for i, d := range b.run.Disks {
			names[i] = d.Name
		}
		b.sources, err = b.driver.snapshots().paths(b.vm, names)
		return err
	}
	b.request = driver.CopyRequest{Kind: copyBackup, Quiesce: b.req.Quiesce, RateLimit: b.req.RateLimit}
	for _, d := range b.run.Disks {
		c := driver.CopyDisk{Name: d.Name, Path: filepath.Join(dir, d.File), Backing: d.Backing, Mark: d.Bitmap}
		if d.Type == manifest.BackupIncremental {
			c.Since = backupBitmap + b.run.Parent
		}
		b.request.Disks = append(b.request.Disks, c)
	}
	copied, err := b.driver.copier().begin(ctx, b.vm, obs, b.request)
	if err != nil {
		return err
	}
	b.took(copied)
	if err := b.folder.NoteBegun(backups.Begun{Run: b.run, Copy: copied}); err != nil {
		return errors.Join(err, b.driver.copier().undo(ctx, b.vm.Metadata.Name, b.request, copied))
	}
	return nil
}

// took notes what QEMU has begun.
func (b *Backup) took(c driver.Copy) {
	b.copied = &c
	b.run.Method, b.run.At, b.run.QEMU = driver.BackupJob, c.At, c.QEMU
	b.run.Consistency, b.run.NotQuiesced, b.run.Frozen = c.Consistency, c.NotQuiesced, c.Frozen
	for i := range b.run.Disks {
		b.run.Disks[i].Size = c.Disks[i].Size
	}
}

// withoutSecrets is the object without what may hold secrets, and what that was.
func withoutSecrets(vm *manifest.VirtualMachine) (*manifest.VirtualMachine, []string) {
	out, omitted := vm.DeepCopy(), []string(nil)
	omit := func(path string, had bool) {
		if had {
			omitted = append(omitted, path)
		}
	}
	if c := out.Spec.CloudInit; c != nil {
		omit("spec.cloudInit.userData", c.UserData != "")
		omit("spec.cloudInit.metaData", !c.MetaData.IsZero())
		omit("spec.cloudInit.networkConfig", !c.NetworkConfig.IsZero())
		c.UserData, c.MetaData, c.NetworkConfig = "", manifest.Free{}, manifest.Free{}
	}
	if e := out.Spec.Emulator; e != nil {
		omit("spec.emulator.extraArgs", len(e.ExtraArgs) > 0)
		e.ExtraArgs = nil
	}
	return out, omitted
}

// backupError makes a LifecycleError of err, unless it is one or nil.
func backupError(vm string, err error) error {
	if err == nil || lifecycle(err) != nil {
		return err
	}
	hint := ""
	var refused *qmp.Error
	var job *JobError
	switch {
	case errors.Is(err, ErrCopyLost):
		hint = "nothing is left of it; make it again, or leave that to the schedule"
	case errors.Is(err, context.DeadlineExceeded):
		hint = "allow more time with --timeouts backup=DURATION"
	}
	return &driver.LifecycleError{VM: vm, Op: "back up", Err: err, Hint: hint, Refused: errors.As(err, &refused) || errors.As(err, &job)}
}
