package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk/backups"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// NeedsMachine tells that the images of a stopped machine are read.
func (b *Backup) NeedsMachine() bool { return b.copied == nil }

// Finish waits for the jobs, or copies the images of a stopped machine, and completes
// the run. What it cannot complete it takes back. The bitmap of the run before goes only
// when this run's manifest is on the disk: until then it still tells everything that has
// changed since.
func (b *Backup) Finish(ctx context.Context, tell func(driver.BackupStage)) (driver.BackupReport, error) {
	if tell == nil {
		tell = func(driver.BackupStage) {}
	}
	if limit := b.driver.timing.Backup; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	err := b.copy(ctx, tell)
	if err == nil {
		b.run.Finished = time.Now().UTC()
		err = b.folder.Complete(ctx, &b.run, func(done, total int64) {
			tell(driver.BackupStage{What: "checking", Done: done, Total: total})
		})
	}
	if err != nil {
		return driver.BackupReport{}, backupError(b.vm.Metadata.Name, errors.Join(err, b.takeBack(ctx)))
	}
	d := b.driver
	d.log.InfoContext(ctx, "backup made", "vm", b.vm.Metadata.Name, "run", b.run.ID, "type", b.run.Type, "why", b.run.Why)
	report := driver.BackupReport{Run: b.run, Marker: b.folder.Mark()}
	warn := b.dropOld(ctx)
	var expired error
	report.Expired, expired = b.expire()
	if warn = errors.Join(warn, expired); warn != nil {
		report.Warning = warn.Error()
	}
	return report, nil
}

// copy brings the disks into their files.
func (b *Backup) copy(ctx context.Context, tell func(driver.BackupStage)) error {
	if b.copied != nil {
		p := b.driver.copier()
		err := p.wait(ctx, b.vm.Metadata.Name, *b.copied, func(now driver.CopyProgress) {
			tell(driver.BackupStage{What: "copying", Done: now.Done, Total: now.Total})
		})
		if err != nil {
			return err
		}
		return p.finish(ctx, b.vm.Metadata.Name, *b.copied)
	}
	for i := range b.run.Disks {
		tell(driver.BackupStage{What: "copying", Done: int64(i), Total: int64(len(b.run.Disks))})
		if err := b.convert(ctx, &b.run.Disks[i]); err != nil {
			return fmt.Errorf("disk %s: %w", b.run.Disks[i].Name, err)
		}
	}
	return nil
}

// convert copies a disk of a stopped machine. The bitmap that notes what changes from
// now on is added first: nothing can write meanwhile.
func (b *Backup) convert(ctx context.Context, d *driver.BackupDisk) (err error) {
	images, from := b.driver.images, b.sources[d.Name]
	format := diskFormatOf(b.vm, d.Name)
	info, err := images.InfoAs(ctx, from, string(format))
	if err != nil {
		return err
	}
	d.Size = info.VirtualSize
	to, err := images.CreateTarget(ctx, filepath.Join(b.folder.Path(b.run.ID), d.File), d.Size, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	needed, err := images.Needed(ctx, from, format)
	if err != nil {
		return err
	}
	if err := images.Reserve(to, min(needed, d.Size)+copyRoom); err != nil {
		return err
	}
	if d.Bitmap != "" {
		if err := images.AddBitmap(ctx, from, d.Bitmap); err != nil {
			return err
		}
	}
	return images.CopyInto(ctx, from, format, to)
}

// takeBack leaves nothing of a run that was not completed.
func (b *Backup) takeBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	own := backupBitmap + b.run.ID
	var err error
	if b.copied != nil {
		err = b.driver.copier().clean(ctx, b.vm.Metadata.Name, *b.copied, []string{own})
		if errors.Is(err, ErrNotRunning) {
			err = nil // the next run finds the bitmap
		}
	} else {
		for name, path := range b.sources {
			if diskFormatOf(b.vm, name) == manifest.FormatQcow2 {
				err = errors.Join(err, b.driver.images.RemoveBitmaps(ctx, path, func(name string) bool { return name == own }))
			}
		}
	}
	return errors.Join(err, b.folder.Remove(b.run.ID))
}

// dropOld removes the bitmaps of runs before this one.
func (b *Backup) dropOld(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	old := func(name string) bool { return isBackupBitmap(name) && name != backupBitmap+b.run.ID }
	if b.copied != nil {
		err := b.driver.DropBitmaps(ctx, b.vm.Metadata.Name, old)
		if errors.Is(err, ErrNotRunning) {
			return nil
		}
		return err
	}
	var err error
	for name, path := range b.sources {
		if diskFormatOf(b.vm, name) == manifest.FormatQcow2 {
			err = errors.Join(err, b.driver.images.RemoveBitmaps(ctx, path, old))
		}
	}
	return err
}

// expire deletes the runs that are kept no longer.
func (b *Backup) expire() ([]string, error) {
	if b.req.Keep == nil {
		return nil, nil
	}
	runs, err := b.folder.Runs()
	if err != nil {
		return nil, err
	}
	zone := b.req.Zone
	if zone == nil {
		zone = time.UTC
	}
	var gone []string
	for _, id := range backups.Expired(runs, *b.req.Keep, zone) {
		if err := b.folder.Remove(id); err != nil {
			return gone, err
		}
		gone = append(gone, id)
	}
	return gone, nil
}

// adopt goes on with a run whose process died while QEMU copied, when its jobs are all
// there.
func (b *Backup) adopt(ctx context.Context, obs driver.Observed) (bool, error) {
	if obs.Presence != driver.Alive {
		return false, nil
	}
	cut, err := b.folder.CutOff()
	if err != nil {
		return false, err
	}
	for _, c := range cut {
		if len(c.Copy.Disks) == 0 || c.Copy.UID != obs.Guest.UID || c.Copy.PID != obs.PID || !c.Copy.Started.Equal(obs.StartedAt) ||
			len(c.Copy.Disks) != len(c.Run.Disks) {
			continue
		}
		now, err := b.driver.copier().progress(ctx, b.vm.Metadata.Name, c.Copy)
		if err != nil {
			return false, err
		}
		if len(now.Missing) > 0 || now.Failed != nil || !b.filesThere(c.Run) {
			continue
		}
		b.run, b.Adopted = c.Run, true
		b.took(c.Copy)
		b.driver.log.InfoContext(ctx, "going on with a backup that was left", "vm", b.vm.Metadata.Name, "run", b.run.ID)
		return true, nil
	}
	return false, nil
}

func (b *Backup) filesThere(run driver.BackupRun) bool {
	return !slices.ContainsFunc(run.Disks, func(d driver.BackupDisk) bool {
		st, err := os.Lstat(filepath.Join(b.folder.Path(run.ID), d.File))
		return err != nil || !st.Mode().IsRegular()
	})
}

// sweep removes what runs that were cut off have left: jobs and nodes of QEMU, bitmaps
// that count from no run that there is, and files.
func (b *Backup) sweep(ctx context.Context, obs driver.Observed, uid string) error {
	cut, err := b.folder.CutOff()
	if err != nil {
		return err
	}
	runs, err := b.folder.Runs()
	if err != nil {
		return err
	}
	last := ""
	if len(runs) > 0 {
		last = backupBitmap + runs[len(runs)-1].ID
	}
	stale := func(name string) bool { return isBackupBitmap(name) && name != last }
	if obs.Presence == driver.Alive {
		p := b.driver.copier()
		if err := p.clean(ctx, b.vm.Metadata.Name, driver.Copy{Kind: copyBackup, UID: uid}, nil); err != nil {
			return fmt.Errorf("remove what is left of an earlier backup: %w", err)
		}
		err := b.driver.Visit(ctx, b.vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error {
			nodes, err := namedNodes(ctx, c)
			if err != nil {
				return err
			}
			return dropBitmaps(ctx, c, nodes, stale)
		})
		if err != nil {
			return err
		}
	}
	if err := b.folder.SweepScratch(); err != nil {
		return err
	}
	for _, c := range cut {
		b.driver.log.InfoContext(ctx, "removing a backup that was cut off", "vm", b.vm.Metadata.Name, "run", c.Run.ID)
		if err := b.folder.Remove(c.Run.ID); err != nil {
			return err
		}
	}
	return nil
}
