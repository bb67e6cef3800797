package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/durable"
)

// RemoveFile deletes one image. It is refused while a process has it open; one that is
// not there is no error.
func (i *Images) RemoveFile(ctx context.Context, path string) error {
	const op = "remove"
	path, err := idleFile(op, path)
	if err != nil || path == "" {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(path, op, err)
	}
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return fail(path, op, err)
	}
	i.log.InfoContext(ctx, "disk deleted", "path", path)
	return nil
}

// MoveFile moves one image to another folder of the same filesystem, and overwrites
// nothing. It is refused while a process has it open.
func (i *Images) MoveFile(ctx context.Context, from, to string) error {
	const op = "move"
	path, err := idleFile(op, from)
	if err != nil {
		return err
	}
	if path == "" {
		return &Error{Path: from, Op: op, Err: fs.ErrNotExist, Hint: "see what there is with: maqet disk orphans"}
	}
	if err := makeFolder(filepath.Dir(to)); err != nil {
		return fail(to, op, err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, fs.ErrExist):
		return &Error{Path: path, Op: op, Err: fmt.Errorf("%s is there already", to), Hint: "give the disk another name"}
	case err != nil:
		return fail(path, op, fmt.Errorf("to %s: %w", to, err))
	}
	i.log.InfoContext(ctx, "disk moved", "from", path, "to", to)
	return errors.Join(durable.SyncDir(filepath.Dir(path)), durable.SyncDir(filepath.Dir(to)))
}

// idleFile is the absolute path of a regular file that nobody uses; empty when there is
// none.
func idleFile(op, path string) (string, error) {
	path, err := absolute(op, path)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fail(path, op, err)
	case !info.Mode().IsRegular():
		return "", &Error{Path: path, Op: op, Err: fmt.Errorf("it is no file (%s)", info.Mode().Type()), Hint: "see to it by hand"}
	}
	if len(Holders(path)) > 0 {
		hint, named := nameHolders(path, ErrInUse)
		return "", &Error{Path: path, Op: op, Err: named, Hint: hint}
	}
	return path, nil
}

// PlaceNew gives a file that is complete its name in the same folder, and returns when
// that is on stable storage. What has the name already is never overwritten, and the
// error is fs.ErrExist then.
func PlaceNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Some filesystems know no RENAME_NOREPLACE. What is made here is ours to replace.
		var f *os.File
		if f, err = os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil { //nolint:gosec // G304: the file to make
			err = errors.Join(f.Close(), os.Rename(from, to))
		}
	}
	if err != nil {
		return fmt.Errorf("rename to %s: %w", to, err)
	}
	return durable.SyncDir(filepath.Dir(to))
}
