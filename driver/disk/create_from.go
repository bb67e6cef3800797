package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/manifest"
)

// CreateFrom makes a qcow2 at path that holds what source holds, with mode 0600. A
// file that exists is left as it is and is no error. It is made as [Images.Create]
// makes one.
func (i *Images) CreateFrom(ctx context.Context, path, source string, format manifest.DiskFormat) error {
	const op = "create"
	path, err := absolute(op, path)
	if err != nil {
		return err
	}
	if done, err := existing(path); done || err != nil {
		return wrap(path, op, err)
	}
	from, err := i.InfoAs(ctx, source, string(format))
	if err != nil {
		return wrap(path, op, err)
	}
	unlock, err := i.lockFolder(ctx, path, op)
	if err != nil {
		return err
	}
	defer unlock()
	return wrap(path, op, i.copyLocked(ctx, path, source, from))
}

// copyLocked copies while the folder's lock is held.
func (i *Images) copyLocked(ctx context.Context, path, source string, from Info) (err error) {
	dir := filepath.Dir(path)
	if err := sweep(dir); err != nil {
		return err
	}
	if done, err := existing(path); done || err != nil {
		return err
	}
	if err := i.checkSpace(dir, from.VirtualSize); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone already once it was renamed
	defer func() { err = errors.Join(err, temp.Close()) }()
	// The target exists already, with mode 0600, which qemu-img keeps.
	if _, err := i.runWith(ctx, temp, "convert", "-q", "-f", from.Format, "-O", string(manifest.FormatQcow2), "--", source, written); err != nil {
		return err
	}
	if err := verifyQcow2(temp, from.VirtualSize); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := renameNew(temp.Name(), path); err != nil {
		return err
	}
	i.log.InfoContext(ctx, "image copied", "from", source, "path", path)
	return durable.SyncDir(dir)
}
