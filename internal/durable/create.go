package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Create makes path as a file that holds data, complete from the first moment,
// and returns when that will survive a loss of power. When the file is there
// already it is left alone, and the error is fs.ErrExist: of many that create
// one file, one wins. Perm 0 means DefaultPerm.
func Create(path string, data []byte, perm fs.FileMode) error {
	if perm == 0 {
		perm = DefaultPerm
	}
	temp := temporary(path)
	if err := write(temp, data, perm, (*os.File).Sync); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	if err := errors.Join(os.Link(temp, path), os.Remove(temp)); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}
