package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/manifest"
)

// ErrDiffers is wrapped when two images do not have the same content.
var ErrDiffers = errors.New("the content differs")

// CopyInto writes the content of an image, its backing files included, into the qcow2
// that to is, which CreateTarget has made.
func (i *Images) CopyInto(ctx context.Context, path string, format manifest.DiskFormat, to *os.File) error {
	const op = "copy"
	path, err := absolute(op, path)
	if err != nil {
		return err
	}
	// -n writes into what is there: the file, its mode and its owner stay.
	_, err = i.runLong(ctx, to, "convert", "-n", "--target-is-zero", "-f", string(format), "-O", "qcow2", path, written)
	return wrap(path, op, err)
}

// Restore makes path a qcow2 that has the content of another, its backing files included,
// and is complete in itself. The file appears under its name when it is complete and on
// the disk, and nothing may be there.
func (i *Images) Restore(ctx context.Context, from, path string) (err error) {
	const op = "restore"
	path, err = absolute(op, path)
	if err != nil {
		return err
	}
	h, err := ReadHeader(from)
	if err != nil {
		return fail(from, op, err)
	}
	dir := filepath.Dir(path)
	unlock, err := i.lockFolder(ctx, path, op)
	if err != nil {
		return err
	}
	defer unlock()
	if err := sweep(dir); err != nil {
		return fail(path, op, err)
	}
	temp, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return fail(path, op, err)
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone already once it was renamed
	defer func() { _ = temp.Close() }()
	if _, err := i.runWith(ctx, temp, "create", "-q", "-f", "qcow2", written, strconv.FormatInt(h.Size, 10)); err != nil {
		return fail(path, op, err)
	}
	if err := i.CopyInto(ctx, from, manifest.FormatQcow2, temp); err != nil {
		return wrap(path, op, err)
	}
	if err := temp.Sync(); err != nil {
		return fail(path, op, err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, temp.Name(), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); err != nil {
		return fail(path, op, err)
	}
	i.log.InfoContext(ctx, "disk restored", "path", path, "from", from)
	return wrap(path, op, durable.SyncDir(dir))
}

// RestoreTo is Restore for a file that is nobody's disk, such as one in a folder of the
// user's: it leaves nothing beside it.
func (i *Images) RestoreTo(ctx context.Context, from, path string) (err error) {
	h, err := ReadHeader(from)
	if err != nil {
		return fail(from, "restore", err)
	}
	to, err := i.CreateTarget(ctx, path, h.Size, "")
	if err != nil {
		return err
	}
	err = i.CopyInto(ctx, from, manifest.FormatQcow2, to)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return wrap(path, "restore", err)
}

// Check has qemu-img check a qcow2, without its backing file.
func (i *Images) Check(ctx context.Context, path string) error {
	const op = "check"
	path, err := absolute(op, path)
	if err != nil {
		return err
	}
	node, err := json.Marshal(map[string]any{
		"driver": "qcow2", "backing": nil, "file": map[string]any{"driver": "file", "filename": path},
	})
	if err != nil {
		return fail(path, op, err)
	}
	out, err := i.runLong(ctx, nil, "check", "--output=json", "json:"+string(node))
	var tool *ToolError
	if errors.As(err, &tool) && tool.Line == "" {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return fail(path, op, err)
	}
	var found struct {
		Corruptions int `json:"corruptions"`
		Errors      int `json:"check-errors"`
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return fail(path, op, fmt.Errorf("qemu-img check: decode: %w", err))
	}
	if found.Corruptions > 0 || found.Errors > 0 {
		return fail(path, op, fmt.Errorf("%w: %d corruptions, %d errors", ErrDamaged, found.Corruptions, found.Errors))
	}
	return nil
}

// Compare tells whether two qcow2 show a guest the same. The error wraps ErrDiffers when
// they do not.
func (i *Images) Compare(ctx context.Context, a, b string) error {
	const op = "compare"
	a, err := absolute(op, a)
	if err != nil {
		return err
	}
	if b, err = absolute(op, b); err != nil {
		return err
	}
	_, err = i.runLong(ctx, nil, "compare", "-q", "-f", "qcow2", "-F", "qcow2", a, b)
	var tool *ToolError
	if errors.As(err, &tool) && tool.Line == "" {
		err = fmt.Errorf("%w: %w", ErrDiffers, err)
	}
	return wrap(b, op, err)
}

// AddBitmap gives a qcow2 that nobody uses a dirty bitmap that notes what is written
// from now on.
func (i *Images) AddBitmap(ctx context.Context, path, name string) error {
	return i.bitmap(ctx, path, "--add", name)
}

// RemoveBitmaps removes the dirty bitmaps of a qcow2 that nobody uses whose name says so.
func (i *Images) RemoveBitmaps(ctx context.Context, path string, which func(name string) bool) error {
	info, err := i.info(ctx, path, string(manifest.FormatQcow2))
	if err != nil {
		return err
	}
	for _, name := range info.Bitmaps {
		if which(name) {
			err = errors.Join(err, i.bitmap(ctx, path, "--remove", name))
		}
	}
	return err
}

func (i *Images) bitmap(ctx context.Context, path, what, name string) error {
	const op = "change the bitmaps of"
	path, err := absolute(op, path)
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, "-") {
		return fail(path, op, fmt.Errorf("%q is no bitmap's name", name))
	}
	_, err = i.run(ctx, "bitmap", what, "-f", "qcow2", path, name)
	return wrap(path, op, err)
}
