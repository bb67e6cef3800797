package backups

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/durable"
)

// Begin makes the folder of a run.
func (f *Folder) Begin(run string) (string, error) {
	dir := f.Path(run)
	if err := os.Mkdir(f.dir(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", &Error{Path: f.dir(), Err: err, Hint: "let maqet's user write there"}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", &Error{Path: dir, Err: err, Hint: "let maqet's user write there"}
	}
	return dir, errors.Join(durable.SyncDir(f.target), durable.SyncDir(f.dir()))
}

// Begun is what is known of a run that goes on.
type Begun struct {
	Run  driver.BackupRun `json:"run"`
	Copy driver.Copy      `json:"copy"`
}

// NoteBegun writes down what a run has begun, for whoever goes on with it.
func (f *Folder) NoteBegun(b Begun) error {
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(f.Path(b.Run.ID), begunFile), append(text, '\n'), 0)
}

// CutOff are the runs that have no manifest, by what was noted of them; those of which
// nothing is known have an ID only.
func (f *Folder) CutOff() ([]Begun, error) {
	entries, err := os.ReadDir(f.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Path: f.dir(), Err: err}
	}
	var found []Begun
	for _, e := range entries {
		if !e.IsDir() || !driver.ValidBackupRun(e.Name()) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(f.Path(e.Name()), manifestFile)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var b Begun
		text, err := readSmall(filepath.Join(f.Path(e.Name()), begunFile))
		if err != nil || json.Unmarshal(text, &b) != nil || b.Run.ID != e.Name() {
			b = Begun{Run: driver.BackupRun{ID: e.Name()}}
		}
		found = append(found, b)
	}
	return found, nil
}

// Remove deletes a run. Its manifest goes first, so that what is left of one that was
// cut off is no run any more. Files that maqet did not put there stay, and are an error.
func (f *Folder) Remove(run string) error {
	dir := f.Path(run)
	if !driver.ValidBackupRun(run) {
		return &Error{Path: dir, Err: ErrNoRun}
	}
	if err := remove(filepath.Join(dir, manifestFile)); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &Error{Path: dir, Err: err}
	}
	for _, e := range entries {
		own := e.Name() == begunFile || e.Name() == brokenFile || filepath.Ext(e.Name()) == imageExt || strings.HasSuffix(e.Name(), ".tmp")
		if !own || !e.Type().IsRegular() {
			return &Error{Path: filepath.Join(dir, e.Name()), Err: errors.New("maqet did not put it there"), Hint: "move it away"}
		}
		if err := remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := remove(dir); err != nil {
		return err
	}
	return durable.SyncDir(f.dir())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &Error{Path: path, Err: err}
	}
	return nil
}

// Complete makes a run of files that are whole: it brings them to the disk, notes their
// digests, and writes the manifest. Tell is told how many bytes have been read.
func (f *Folder) Complete(ctx context.Context, run *driver.BackupRun, tell func(done, total int64)) error {
	dir := f.Path(run.ID)
	total := int64(0)
	for i := range run.Disks {
		d := &run.Disks[i]
		path := filepath.Join(dir, d.File)
		if err := disk.Settle(path); err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return &Error{Path: path, Err: err}
		}
		d.Bytes = st.Size()
		total += d.Bytes
	}
	done := int64(0)
	for i := range run.Disks {
		d := &run.Disks[i]
		sum, err := digest(ctx, filepath.Join(dir, d.File), func(n int64) {
			done += n
			tell(done, total)
		})
		if err != nil {
			return err
		}
		d.SHA256 = sum
	}
	if err := errors.Join(durable.SyncDir(dir), f.Check()); err != nil {
		return err
	}
	return f.writeManifest(run)
}

// writeManifest is what makes a run one.
func (f *Folder) writeManifest(run *driver.BackupRun) error {
	dir := f.Path(run.ID)
	text, err := json.MarshalIndent(run, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, manifestFile), append(text, '\n'), 0); err != nil {
		return &Error{Path: dir, Err: err}
	}
	run.Folder = dir
	return remove(filepath.Join(dir, begunFile))
}

// digest reads a file and returns its sha256 in hex.
func digest(ctx context.Context, path string, tell func(n int64)) (_ string, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0) //nolint:gosec // G304: within the target
	if err != nil {
		return "", &Error{Path: path, Err: err}
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	hash := sha256.New()
	for {
		n, err := io.CopyN(hash, file, 4<<20)
		tell(n)
		switch {
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(hash.Sum(nil)), nil
		case err != nil:
			return "", &Error{Path: path, Err: fmt.Errorf("read: %w", err)}
		case ctx.Err() != nil:
			return "", ctx.Err()
		}
	}
}
