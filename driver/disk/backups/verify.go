package backups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
)

// Verify reads everything that a chain holds: names, sizes, headers, digests, and what
// qemu-img check says of each file. It notes which runs are broken, and that others are
// not any more. Tell is told how many bytes have been read.
func Verify(ctx context.Context, images *disk.Images, chain []driver.BackupRun, tell func(done, total int64)) ([]driver.BackupFinding, error) {
	total, done := int64(0), int64(0)
	for _, run := range chain {
		total += run.Bytes()
	}
	var found []driver.BackupFinding
	for _, run := range chain {
		before := len(found)
		if len(run.Disks) == 0 {
			found = append(found, driver.BackupFinding{Run: run.ID, File: manifestFile, Problem: run.Broken})
			continue
		}
		for _, d := range run.Disks {
			err := verifyFile(ctx, images, run, d, func(n int64) {
				done += n
				tell(done, total)
			})
			if ctx.Err() != nil {
				return found, ctx.Err()
			}
			if err != nil {
				found = append(found, driver.BackupFinding{Run: run.ID, File: filepath.Join(run.Folder, d.File), Problem: err.Error()})
			}
		}
		if err := MarkBroken(run, words(found[before:])); err != nil {
			return found, err
		}
	}
	return found, nil
}

func verifyFile(ctx context.Context, images *disk.Images, run driver.BackupRun, d driver.BackupDisk, tell func(n int64)) error {
	if err := checkFile(run, d); err != nil {
		return err
	}
	path := filepath.Join(run.Folder, d.File)
	sum, err := digest(ctx, path, tell)
	if err != nil {
		return err
	}
	if sum != d.SHA256 {
		return fmt.Errorf("its sha256 is %s and should be %s", sum, d.SHA256)
	}
	return images.Check(ctx, path)
}

// words are findings in a line.
func words(found []driver.BackupFinding) string {
	var lines []string
	for _, f := range found {
		lines = append(lines, filepath.Base(f.File)+": "+f.Problem)
	}
	return strings.Join(lines, "; ")
}

// scratchPrefix begins the names of folders to which runs are restored for a look.
const scratchPrefix = ".verify-"

// SweepScratch removes what a check that was cut off has left.
func (f *Folder) SweepScratch() error {
	left, err := filepath.Glob(filepath.Join(f.dir(), scratchPrefix+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// TryRestore restores each disk of a run, whose chain has been verified, into a folder
// beside it, compares that with the chain, and deletes it again.
func (f *Folder) TryRestore(ctx context.Context, images *disk.Images, run driver.BackupRun) (found []driver.BackupFinding, err error) {
	scratch, err := os.MkdirTemp(filepath.Dir(run.Folder), scratchPrefix)
	if err != nil {
		return nil, &Error{Path: f.target, Err: err}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	for _, d := range run.Disks {
		from, to := filepath.Join(run.Folder, d.File), filepath.Join(scratch, d.File)
		err := images.RestoreTo(ctx, from, to)
		if err == nil {
			err = images.Compare(ctx, from, to)
		}
		if ctx.Err() != nil {
			return found, ctx.Err()
		}
		if err != nil {
			found = append(found, driver.BackupFinding{Run: run.ID, File: from, Problem: err.Error()})
		}
		if err := remove(to); err != nil {
			return found, err
		}
	}
	return found, nil
}
