package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DefaultPerm is the mode of files written with perm 0.
const DefaultPerm fs.FileMode = 0o600

// WriteFile replaces path by a file that holds data, and returns when that
// will survive a loss of power. Perm 0 means DefaultPerm; the umask does not
// apply. The folder must exist.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	if err := replace(path, data, perm, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteVolatile replaces path by a file that holds data, atomically but
// without waiting for the disk. Perm 0 means DefaultPerm; the umask does not
// apply. The folder must exist.
func WriteVolatile(path string, data []byte, perm fs.FileMode) error {
	return replace(path, data, perm, func(*os.File) error { return nil })
}

// SyncDir returns when the names in a folder will survive a loss of power:
// those of files made in it, renamed into it and removed from it.
func SyncDir(path string) (err error) {
	dir, err := os.Open(path) //nolint:gosec // the caller's own folder.
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// replace writes a temporary file beside path and renames it.
func replace(path string, data []byte, perm fs.FileMode, sync func(*os.File) error) error {
	if perm == 0 {
		perm = DefaultPerm
	}
	temp := temporary(path)
	if err := write(temp, data, perm, sync); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(temp)))
	}
	return nil
}

// temporary is a new hidden name beside path, within the file system's limit
// of 255 bytes.
func temporary(path string) string {
	const most = 200
	name := filepath.Base(path)
	if len(name) > most {
		name = name[:most]
	}
	return filepath.Join(filepath.Dir(path), "."+name+"."+rand.Text()+".tmp")
}

// write makes a new file. It leaves none behind when it fails, and as good as none
// when it is killed: the file gets its name only when it is whole, where the
// filesystem can do that (open(2), O_TMPFILE).
func write(path string, data []byte, perm fs.FileMode, sync func(*os.File) error) error {
	fd, err := unix.Open(filepath.Dir(path), unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, uint32(DefaultPerm))
	if err != nil {
		return writeNamed(path, data, perm, sync)
	}
	f := os.NewFile(uintptr(fd), path)
	err = fill(f, data, perm, sync)
	if err == nil {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	}
	err = errors.Join(err, f.Close())
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		// Without /proc there is no way to name it.
		return writeNamed(path, data, perm, sync)
	}
	return err
}

// writeNamed does so under the name from the beginning.
func writeNamed(path string, data []byte, perm fs.FileMode, sync func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, DefaultPerm) //nolint:gosec // the caller's own file.
	if err != nil {
		return err
	}
	if err := errors.Join(fill(f, data, perm, sync), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// fill writes data. The mode is set last and by itself: the umask must not take bits
// away, and nobody else may read a half-written file.
func fill(f *os.File, data []byte, perm fs.FileMode, sync func(*os.File) error) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if perm != DefaultPerm {
		if err := f.Chmod(perm); err != nil {
			return err
		}
	}
	return sync(f)
}
