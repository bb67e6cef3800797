package disk

import (
	"context"
	"fmt"
	"strconv"

	"github.com/maqet/maqet/manifest"
)

// Grow makes the qcow2 at path, which no process has open, as large as size. One
// that has the size already is left as it is, and one that is larger is refused:
// what lies beyond the end would be cut off.
func (i *Images) Grow(ctx context.Context, path string, size manifest.Quantity) error {
	const op, format = "grow", "qcow2"
	path, err := absolute(op, path)
	if err != nil {
		return err
	}
	info, err := i.info(ctx, path, format)
	switch {
	case err != nil:
		return err
	case info.VirtualSize == size.Bytes():
		return nil
	case info.VirtualSize > size.Bytes():
		return &Error{
			Path: path, Op: op, Hint: "set the size back to " + manifest.Quantity(info.VirtualSize).String(),
			Err: fmt.Errorf("%w: it is %s and would become %s", ErrShrink, manifest.Quantity(info.VirtualSize), size),
		}
	}
	// Qemu-img itself refuses to shrink without --shrink, should another process
	// have grown the image meanwhile.
	if err := i.change(ctx, path, "resize", "-q", "--image-opts", imageOpts(path), strconv.FormatInt(size.Bytes(), 10)); err != nil {
		return fail(path, op, err)
	}
	after, err := i.info(ctx, path, format)
	if err != nil {
		return err
	}
	if after.VirtualSize != size.Bytes() {
		return &Error{Path: path, Op: op, Err: fmt.Errorf("qemu-img resize: it is %s and not %s", manifest.Quantity(after.VirtualSize), size)}
	}
	i.log.InfoContext(ctx, "disk grown", "path", path, "size", size.Bytes())
	return nil
}
