package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/durable"
)

// removingDir is where folders go that are being removed: beside the machines'
// folders, under a name that no machine can have.
const removingDir = ".removing"

// Keep moves a machine's folder with everything in it to toDir, which must not
// exist yet. It is refused while a process has a file of the folder open. A
// folder that is not there any more is no error: there is nothing to keep, or an
// earlier run has moved it.
func (i *Images) Keep(ctx context.Context, fromDir, toDir string) error {
	const op = "keep"
	from, err := i.idleFolder(ctx, op, fromDir)
	if err != nil || from == "" {
		return err
	}
	to, err := absolute(op, toDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fail(from, op, err)
	}
	if err := moveFolder(from, to); err != nil {
		return wrap(from, op, err)
	}
	i.log.InfoContext(ctx, "disks kept", "from", from, "to", to)
	return nil
}

// Remove deletes a machine's folder with everything in it. The folder first
// disappears from its name as a whole, so that a run that is killed leaves no
// machine with half of its disks; the next Remove beside it deletes the rest. It
// is refused while a process has a file of the folder open. A folder that is not
// there is no error.
func (i *Images) Remove(ctx context.Context, dir string) error {
	const op = "remove"
	from, err := i.idleFolder(ctx, op, dir)
	if err != nil {
		return err
	}
	abs, err := absolute(op, dir)
	if err != nil {
		return err
	}
	bin := filepath.Join(filepath.Dir(abs), removingDir)
	if from != "" {
		if err := os.MkdirAll(bin, 0o700); err != nil {
			return fail(abs, op, err)
		}
		if err := moveFolder(from, filepath.Join(bin, filepath.Base(abs)+"-"+rand.Text())); err != nil {
			return wrap(from, op, err)
		}
	}
	if err := empty(bin); err != nil {
		return fail(abs, op, err)
	}
	if from != "" {
		i.log.InfoContext(ctx, "disks deleted", "path", from)
	}
	return nil
}

// empty deletes everything in bin. The folder itself stays: another process may
// be about to move something into it.
func empty(bin string) error {
	entries, err := os.ReadDir(bin)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		err = os.RemoveAll(filepath.Join(bin, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// idleFolder is the absolute path of a machine's folder that nobody uses; empty
// when there is no such folder.
func (i *Images) idleFolder(ctx context.Context, op, dir string) (string, error) {
	dir, err := absolute(op, dir)
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", fail(dir, op, err)
	}
	if filepath.Dir(dir) == dir {
		return "", &Error{Path: dir, Op: op, Err: errors.New("this is no machine's folder"), Hint: "name the folder of one machine"}
	}
	var files []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fail(dir, op, err)
	}
	if found := Holders(files...); len(found) > 0 {
		return "", &Error{
			Path: dir, Op: op, Err: fmt.Errorf("%w by %s", ErrInUse, HolderWords(found)),
			Hint: "stop the machine first",
		}
	}
	return dir, nil
}

// moveFolder renames without overwriting and makes it durable.
func moveFolder(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Plain rename overwrites an empty folder only, and fails on any other.
		err = os.Rename(from, to)
	}
	switch {
	case errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY):
		return &Error{Path: from, Op: "move", Err: fmt.Errorf("%s is there already", to), Hint: "move that folder away first"}
	case errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EBUSY):
		return &Error{Path: from, Op: "move", Err: fmt.Errorf("to %s: %w", to, err), Hint: "the folder is a mount point or on another filesystem: move it by hand"}
	case err != nil:
		return fmt.Errorf("move to %s: %w", to, err)
	}
	if err := durable.SyncDir(filepath.Dir(from)); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}
