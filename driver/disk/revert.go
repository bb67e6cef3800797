package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// undoPrefix begins the tags of the snapshots that a revert can be undone from. No
// machine's snapshot can have such a name, since a name has no dot.
const undoPrefix = "maqet.undo."

// RevertSnapshot gives every image the content it had when the snapshot was
// taken. What was written since is lost. Before anything changes it looks whether
// each image has the tag, is free, and has no dirty bitmap; when one fails all the
// same, those already reverted get their content back.
func (i *Images) RevertSnapshot(ctx context.Context, paths map[string]string, tag string) error {
	const op = "revert"
	infos, err := i.preflight(ctx, op, paths, tag)
	if err != nil {
		return err
	}
	all := make([]string, 0, len(infos))
	for _, name := range disks(paths).names() {
		if err := revertible(infos[name], tag); err != nil {
			return &Error{Path: infos[name].Path, Op: op, Err: fmt.Errorf("disk %s: %w", name, err), Hint: revertHint(err)}
		}
		all = append(all, infos[name].Path)
	}
	// What a revert that was killed has left stays until this one has succeeded: it
	// may hold content that is nowhere else.
	undo := undoPrefix + rand.Text()
	for _, path := range all {
		if err := i.snapshot(ctx, "-c", undo, path); err != nil {
			return i.rollback(ctx, fail(path, op, err), all, func(ctx context.Context, path string) error {
				return i.deleteTag(ctx, path, undo)
			})
		}
	}
	for _, name := range disks(paths).names() {
		if err := i.snapshot(ctx, "-a", tag, infos[name].Path); err != nil {
			err = fail(infos[name].Path, op, fmt.Errorf("disk %s: %w", name, err))
			return i.rollback(ctx, err, all, func(ctx context.Context, path string) error { return i.undo(ctx, path, undo) })
		}
	}
	return i.rollback(ctx, nil, all, i.dropUndo)
}

// revertible says why an image cannot be reverted to tag; nil when it can.
func revertible(info Info, tag string) error {
	if !info.Has(tag) {
		return fmt.Errorf("%w: %s", ErrNoSnapshot, tag)
	}
	if len(info.Bitmaps) > 0 {
		return fmt.Errorf("%w: %s", ErrBitmaps, strings.Join(info.Bitmaps, ", "))
	}
	for n, id := range info.ids {
		if id == tag && info.Snapshots[n].Tag != tag {
			return fmt.Errorf("%q is also the number of the snapshot %q, and qemu-img would revert to that", tag, info.Snapshots[n].Tag)
		}
	}
	return nil
}

func revertHint(err error) string {
	switch {
	case errors.Is(err, ErrNoSnapshot):
		return "list what there is with: maqet snapshot list"
	case errors.Is(err, ErrBitmaps):
		return "remove them with: qemu-img bitmap --remove FILE NAME"
	default:
		return "revert to it by its own number with: qemu-img snapshot -a NUMBER FILE"
	}
}

// undo gives an image the content back that it had before this revert.
func (i *Images) undo(ctx context.Context, path, tag string) error {
	if err := i.snapshot(ctx, "-a", tag, path); err != nil {
		return fmt.Errorf("the content of before is in the snapshot %s: %w", tag, err)
	}
	return i.deleteTag(ctx, path, tag)
}

// dropUndo deletes all that a revert could have been undone from.
func (i *Images) dropUndo(ctx context.Context, path string) error {
	info, err := i.info(ctx, path, "qcow2")
	if err != nil {
		return err
	}
	for _, s := range info.Snapshots {
		if strings.HasPrefix(s.Tag, undoPrefix) {
			if err := i.snapshot(ctx, "-d", s.Tag, path); err != nil {
				return err
			}
		}
	}
	return nil
}
