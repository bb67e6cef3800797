package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// write makes a new file. It leaves none behind when it fails.
func write(path string, data []byte, perm fs.FileMode, sync func(*os.File) error) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, DefaultPerm) //nolint:gosec // the caller's own file.
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	// The mode is set last and by itself: the umask must not take bits away,
	// and nobody else may read a half-written file.
	if perm != DefaultPerm {
		if err := f.Chmod(perm); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := sync(f); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
