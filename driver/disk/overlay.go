package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/manifest"
)

// Base is what an overlay is made of.
type Base struct {
	// Path is an image that nobody writes to any more.
	Path string
	// Format is its format, which is written into the overlay: without it QEMU
	// would guess, by content that a guest may have written.
	Format string
	// Size is what a guest sees of it.
	Size int64
}

// ErrSmaller is wrapped when a disk would be smaller than what it is made of.
var ErrSmaller = errors.New("the disk would be smaller than its image")

// CreateOverlay makes a qcow2 at path that reads from base what was not written to
// it, with mode 0600 and, where it is missing, its folder with mode 0700. Size is
// what a guest sees, and 0 is as much as of the base. As by Create, a file that
// exists is left as it is, and the overlay appears under its name when it is
// complete.
func (i *Images) CreateOverlay(ctx context.Context, path string, base Base, size manifest.Quantity) error {
	const op = "create"
	path, err := absolute(op, path)
	if err != nil {
		return err
	}
	if base.Path, err = absolute(op, base.Path); err != nil {
		return err
	}
	if done, err := existing(path); done || err != nil {
		return wrap(path, op, err)
	}
	if size == 0 {
		size = manifest.Quantity(base.Size)
	}
	switch {
	case size.Bytes() < base.Size:
		return &Error{
			Path: path, Op: op, Err: fmt.Errorf("%w: %s, of an image of %s", ErrSmaller, size, manifest.Quantity(base.Size)),
			Hint: "give it at least the size of the image, or none",
		}
	case size <= 0 || size.Bytes()%sectorSize != 0:
		return &Error{Path: path, Op: op, Err: fmt.Errorf("%d bytes is no size of a disk", size.Bytes()), Hint: "use a multiple of " + strconv.Itoa(sectorSize) + " bytes"}
	}
	if _, err := os.Stat(base.Path); err != nil {
		return &Error{Path: path, Op: op, Err: fmt.Errorf("the image that it is made of: %w", err), Hint: "fetch the image again with: maqet image pull"}
	}
	unlock, err := i.lockFolder(ctx, path, op)
	if err != nil {
		return err
	}
	defer unlock()
	return wrap(path, op, i.overlayLocked(ctx, path, base, size.Bytes()))
}

// overlayLocked makes an overlay while the folder's lock is held.
func (i *Images) overlayLocked(ctx context.Context, path string, base Base, size int64) error {
	dir := filepath.Dir(path)
	if err := sweep(dir); err != nil {
		return err
	}
	if done, err := existing(path); done || err != nil {
		return err
	}
	if err := i.checkSpace(dir, size); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone already once it was renamed
	defer func() { _ = temp.Close() }()
	_, err = i.runWith(ctx, temp, "create", "-q", "-f", "qcow2", "-b", base.Path, "-F", base.Format, written, strconv.FormatInt(size, 10))
	if err != nil {
		return err
	}
	h, err := ReadHeader(temp.Name())
	if err != nil {
		return err
	}
	if want := (Header{Format: "qcow2", Size: size, Backing: base.Path, BackingFormat: base.Format}); h != want {
		return fmt.Errorf("qemu-img create: made %+v instead of %+v", h, want)
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := renameNew(temp.Name(), path); err != nil {
		return err
	}
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	i.log.InfoContext(ctx, "disk created", "path", path, "size", size, "image", base.Path)
	return nil
}
