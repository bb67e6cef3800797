package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk/backups"
	"github.com/maqet/maqet/manifest"
)

// ErrRunning is wrapped when something can only be done to a machine that is stopped.
var ErrRunning = errors.New("the machine runs")

// ErrBackupBroken is wrapped when a backup is not what its manifest says.
var ErrBackupBroken = errors.New("the backup is damaged")

// BackupRuns are the complete runs of a machine in a target, oldest first: also those of
// earlier machines of its name.
func (d *Driver) BackupRuns(target, vm string) ([]driver.BackupRun, error) {
	folder, err := backups.Look(target, vm, "")
	if err != nil {
		return nil, backupError(vm, err)
	}
	runs, err := folder.AllRuns()
	return runs, backupError(vm, err)
}

// VerifyBackup reads everything that a run needs, and with restore also restores it to
// a scratch folder in the target and compares. It notes in the target what is broken.
// Empty finds the newest run.
func (d *Driver) VerifyBackup(ctx context.Context, target, vm, id string, restore bool, tell func(driver.BackupStage)) (driver.BackupRun, []driver.BackupFinding, error) {
	folder, run, chain, err := d.chainOf(target, vm, id)
	if err != nil {
		return run, nil, backupError(vm, err)
	}
	found, err := backups.Verify(ctx, d.images, chain, checking(tell))
	if err == nil && len(found) == 0 && restore {
		tell(driver.BackupStage{What: "restoring"})
		found, err = folder.TryRestore(ctx, d.images, run)
	}
	return run, found, backupError(vm, err)
}

func checking(tell func(driver.BackupStage)) func(done, total int64) {
	return func(done, total int64) { tell(driver.BackupStage{What: "checking", Done: done, Total: total}) }
}

// chainOf are the runs that a run needs.
func (d *Driver) chainOf(target, vm, id string) (*backups.Folder, driver.BackupRun, []driver.BackupRun, error) {
	folder, err := backups.Look(target, vm, "")
	if err != nil {
		return nil, driver.BackupRun{}, nil, err
	}
	runs, err := folder.AllRuns()
	if err != nil {
		return nil, driver.BackupRun{}, nil, err
	}
	if id == "" {
		id = "latest"
	}
	run, ok := backups.Find(runs, id)
	if !ok {
		return nil, run, nil, fmt.Errorf("%w: %s; see: maqet backup list %s", backups.ErrNoRun, id, vm)
	}
	chain, err := backups.Chain(runs, run.ID)
	return folder, run, chain, err
}

// RestoreBackup sets the disks of a stopped machine, or of one whose disks are gone, to
// what a run holds. Everything that the run needs is verified before. The disks that are
// there are set aside, unless safety is false: then they are deleted once the new ones
// are complete. The caller has the machine's lock.
func (d *Driver) RestoreBackup(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, target, id string, safety bool, tell func(driver.BackupStage)) (driver.BackupRestored, error) {
	name := vm.Metadata.Name
	if obs.Presence != driver.Absent {
		return driver.BackupRestored{}, &driver.LifecycleError{
			VM: name, Op: restoreOp, Err: fmt.Errorf("%w: its QEMU has the disks open", ErrRunning),
			Hint: "stop it with: maqet stop " + name + ", or restore beside it with --to-dir DIR",
		}
	}
	run, err := d.verified(ctx, target, name, id, tell)
	if err != nil {
		return driver.BackupRestored{}, restoreError(name, err)
	}
	r := &restoration{driver: d, vm: vm, run: run, tell: tell, done: driver.BackupRestored{Run: run}}
	err = r.all(ctx, safety)
	return r.done, restoreError(name, err)
}

// RestoreBackupTo makes files of the disks of a run in a folder, whatever the machine
// does. The folder is made if it is not there; the one it is in must be.
func (d *Driver) RestoreBackupTo(ctx context.Context, vm, target, id, dir string, tell func(driver.BackupStage)) (driver.BackupRestored, error) {
	run, err := d.verified(ctx, target, vm, id, tell)
	if err != nil {
		return driver.BackupRestored{}, restoreError(vm, err)
	}
	done := driver.BackupRestored{Run: run}
	if err := os.Mkdir(dir, dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
		return done, restoreError(vm, err)
	}
	for _, disk := range run.Disks {
		to := filepath.Join(dir, disk.File)
		tell(driver.BackupStage{What: "restoring " + disk.Name})
		if err := d.images.RestoreTo(ctx, filepath.Join(run.Folder, disk.File), to); err != nil {
			return done, restoreError(vm, err)
		}
		done.Files = append(done.Files, to)
	}
	return done, nil
}

// verified is a run of which everything is what it should be.
func (d *Driver) verified(ctx context.Context, target, vm, id string, tell func(driver.BackupStage)) (driver.BackupRun, error) {
	run, found, err := d.VerifyBackup(ctx, target, vm, id, false, tell)
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%w: %s: %s", ErrBackupBroken, found[0].File, found[0].Problem)
	}
	return run, err
}

const restoreOp = "restore"

func restoreError(vm string, err error) error {
	if err == nil || lifecycle(err) != nil && !errors.Is(err, backups.ErrNoRun) {
		return err
	}
	hint := ""
	if errors.Is(err, ErrBackupBroken) {
		hint = "nothing was changed; choose an earlier one of maqet backup list " + vm
	}
	return &driver.LifecycleError{VM: vm, Op: restoreOp, Err: cause(err), Hint: hint}
}

// restoration sets a machine's disks to a run.
//
// First the new files are made beside the old ones. Then all old ones are moved away, and
// then all new ones get their names: whatever ends it halfway, at least one disk is
// missing, and a machine that lacks a disk is not started. Never is there a machine with
// disks of two times.
type restoration struct {
	driver *Driver
	vm     *manifest.VirtualMachine
	run    driver.BackupRun
	tell   func(driver.BackupStage)
	done   driver.BackupRestored
	// places are where the disks belong, by name.
	places map[string]string
}

// waitingSuffix ends the names of restored disks that wait for their own.
const waitingSuffix = ".restored"

// notRestoring refuses to make an empty disk where a restored one waits for its name: the
// restore was cut off, and the machine would have disks of two times.
func notRestoring(path string) error {
	waiting := path + waitingSuffix
	if _, err := os.Lstat(waiting); err != nil {
		return nil //nolint:nilerr // there is none, or nobody can tell; making the disk tells
	}
	return fmt.Errorf("a restore of a backup was cut off, and has left %s", waiting)
}

// restoreAgain is the remedy for that.
const restoreAgain = "run maqet backup restore again, or remove the file for an empty disk"

func (r *restoration) all(ctx context.Context, safety bool) error {
	if err := r.find(); err != nil {
		return err
	}
	for _, name := range r.done.Disks {
		r.tell(driver.BackupStage{What: "restoring " + name})
		to := r.places[name] + waitingSuffix
		// One that an earlier restore has left is of whatever run that was.
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := r.driver.images.Restore(ctx, filepath.Join(r.run.Folder, name+".qcow2"), to); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
	}
	// From here on it is seen to its end.
	return r.exchange(context.WithoutCancel(ctx), safety)
}

// find tells which disks the run and the manifest have in common.
func (r *restoration) find() error {
	r.places = map[string]string{}
	s := r.driver.snapshots()
	for _, d := range r.run.Disks {
		i := slices.IndexFunc(r.vm.Spec.Disks, func(v manifest.Disk) bool { return v.Name == d.Name })
		nvram := isNVRAM(d.Name) && driver.FirmwareKindOf(&r.vm.Spec).NVRAMNode() == d.Name
		switch {
		case nvram:
		case i < 0:
			r.done.Skipped = append(r.done.Skipped, d.Name)
			continue
		case diskFormatOf(r.vm, d.Name) != manifest.FormatQcow2 || elsewhere(r.vm, d.Name):
			return fmt.Errorf("disk %s is not a qcow2 file, in whose place a restored one could be put; restore with --to-dir DIR and copy it yourself", d.Name)
		}
		path := s.path(r.vm, d.Name)
		if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
			return fmt.Errorf("disk %s: %s is no file; restore with --to-dir DIR and copy it yourself", d.Name, path)
		}
		r.places[d.Name] = path
		r.done.Disks = append(r.done.Disks, d.Name)
	}
	for i := range r.vm.Spec.Disks {
		if d := &r.vm.Spec.Disks[i]; writableDisk(d) && r.places[d.Name] == "" {
			r.done.Untouched = append(r.done.Untouched, d.Name)
		}
	}
	if len(r.done.Disks) == 0 {
		return fmt.Errorf("the manifest has none of the disks %s of the backup", strings.Join(r.done.Skipped, ", "))
	}
	return nil
}

// exchange moves the old disks away and gives the new ones their names.
func (r *restoration) exchange(ctx context.Context, safety bool) error {
	name := r.vm.Metadata.Name
	return r.driver.whileAbsent(ctx, restoreOp, name, func(l *look) error {
		kept := ""
		for _, disk := range r.done.Disks {
			path := r.places[disk]
			if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if !safety {
				if err := r.driver.images.RemoveFile(ctx, path); err != nil {
					return err
				}
				continue
			}
			if kept == "" {
				to, err := freeFolder(keptFolder(r.driver.layout, name, l))
				if err != nil {
					return err
				}
				kept = to
			}
			if err := r.setAside(ctx, path, kept); err != nil {
				return err
			}
		}
		if err := r.identity(); err != nil {
			return err
		}
		for _, disk := range r.done.Disks {
			path := r.places[disk]
			if err := r.driver.images.MoveFile(ctx, path+waitingSuffix, path); err != nil {
				return err
			}
		}
		return nil
	})
}

// setAside moves a disk that maqet made to the kept ones, and a file of the user's to
// another name beside it.
func (r *restoration) setAside(ctx context.Context, path, kept string) error {
	if filepath.Dir(path) == r.driver.layout.DiskDir(r.vm.Metadata.Name) {
		r.done.KeptAt = append(r.done.KeptAt, filepath.Join(kept, filepath.Base(path)))
		return r.driver.images.SetAside(ctx, path, kept)
	}
	to := path + ".before-" + r.run.ID
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.before-%s-%d", path, r.run.ID, n)
	}
	r.done.KeptAt = append(r.done.KeptAt, to)
	return r.driver.images.MoveFile(ctx, path, to)
}

// identity gives a machine that has lost its identity the one of the run.
func (r *restoration) identity() error {
	have, err := r.driver.readIdentity(r.vm.Metadata.Name)
	if err != nil || have != nil || r.run.Identity == nil {
		return err
	}
	return r.driver.writeIdentity(r.vm.Metadata.Name, *r.run.Identity)
}
