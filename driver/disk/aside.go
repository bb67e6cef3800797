package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/maqet/maqet/internal/durable"
)

// SetAside moves one image into the folder toDir, which it makes. It is refused
// while a process has the image open. One that is not there any more is no error:
// an earlier run has moved it.
func (i *Images) SetAside(ctx context.Context, path, toDir string) error {
	const op = "set aside"
	path, err := absolute(op, path)
	if err != nil {
		return err
	}
	if toDir, err = absolute(op, toDir); err != nil {
		return err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if found := Holders(path); len(found) > 0 {
		return &Error{Path: path, Op: op, Err: fmt.Errorf("%w by %s", ErrInUse, HolderWords(found)), Hint: "stop the machine first"}
	}
	if err := os.MkdirAll(toDir, 0o700); err != nil {
		return fail(path, op, err)
	}
	to := filepath.Join(toDir, filepath.Base(path))
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return &Error{Path: path, Op: op, Err: fmt.Errorf("%s is there already", to), Hint: "move that file away first"}
	}
	if err := os.Rename(path, to); err != nil {
		return fail(path, op, err)
	}
	for _, dir := range []string{toDir, filepath.Dir(toDir), filepath.Dir(path)} {
		if err := durable.SyncDir(dir); err != nil {
			return fail(path, op, err)
		}
	}
	i.log.InfoContext(ctx, "disk set aside", "from", path, "to", to)
	return nil
}
