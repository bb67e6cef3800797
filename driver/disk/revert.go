package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// undoPrefix begins the tags of the snapshots that a revert can be undone from. No
// machine's snapshot can have such a name, since a name has no dot.
const undoPrefix = "maqet.undo."

// RevertSnapshot gives every image the content it had when the snapshot was
// taken. What was written since is lost. Before anything changes it looks whether
// each image has the tag and is free; when one fails all the same, those already
// reverted get their content back.
//
// QEMU reverts no image that has a dirty bitmap, which would tell of other content
// afterwards. They are removed, when nothing else is in the way any more, and returned
// by disk name, also with an error: the next backup of such a disk cannot build on the
// last one.
func (i *Images) RevertSnapshot(ctx context.Context, paths map[string]string, tag string) (bitmaps map[string][]string, err error) {
	const op = "revert"
	infos, err := i.preflight(ctx, op, paths, tag)
	if err != nil {
		return nil, err
	}
	all := make([]string, 0, len(infos))
	for _, name := range disks(paths).names() {
		if err := revertible(infos[name], tag); err != nil {
			return nil, &Error{Path: infos[name].Path, Op: op, Err: fmt.Errorf("disk %s: %w", name, err), Hint: revertHint(err)}
		}
		all = append(all, infos[name].Path)
	}
	// What a revert that was killed has left stays until this one has succeeded: it
	// may hold content that is nowhere else.
	undo := undoPrefix + rand.Text()
	forget := func(ctx context.Context, path string) error { return i.deleteTag(ctx, path, undo) }
	for _, path := range all {
		if err := i.snapshot(ctx, "-c", undo, path); err != nil {
			return nil, i.rollback(ctx, fail(path, op, err), all, forget)
		}
	}
	if bitmaps, err = i.removeBitmaps(ctx, infos); err != nil {
		return bitmaps, i.rollback(ctx, err, all, forget)
	}
	for _, name := range disks(paths).names() {
		if err := i.snapshot(ctx, "-a", tag, infos[name].Path); err != nil {
			err = fail(infos[name].Path, op, fmt.Errorf("disk %s: %w", name, err))
			return bitmaps, i.rollback(ctx, err, all, func(ctx context.Context, path string) error { return i.undo(ctx, path, undo) })
		}
	}
	return bitmaps, i.rollback(ctx, nil, all, i.dropUndo)
}

// removeBitmaps removes all dirty bitmaps of images that nobody has open, also those
// that a crash has left unusable, and tells which they were, by disk name.
func (i *Images) removeBitmaps(ctx context.Context, infos map[string]Info) (removed map[string][]string, err error) {
	const op = "remove the dirty bitmaps of"
	for _, name := range slices.Sorted(maps.Keys(infos)) {
		info := infos[name]
		for _, bitmap := range info.Bitmaps {
			if err := i.change(ctx, info.Path, "bitmap", "--image-opts", "--remove", "--", imageOpts(info.Path), bitmap); err != nil {
				return removed, fail(info.Path, op, fmt.Errorf("disk %s: %s: %w", name, bitmap, err))
			}
			if removed == nil {
				removed = map[string][]string{}
			}
			removed[name] = append(removed[name], bitmap)
		}
		if len(info.Bitmaps) == 0 {
			continue
		}
		now, err := i.info(ctx, info.Path, "qcow2")
		if err == nil && len(now.Bitmaps) > 0 {
			err = fmt.Errorf("%w: %s", ErrBitmaps, strings.Join(now.Bitmaps, ", "))
		}
		if err != nil {
			return removed, wrap(info.Path, op, fmt.Errorf("disk %s: %w", name, err))
		}
		i.log.InfoContext(ctx, "dirty bitmaps removed", "path", info.Path, "bitmaps", info.Bitmaps)
	}
	return removed, nil
}

// revertible says why an image cannot be reverted to tag; nil when it can.
func revertible(info Info, tag string) error {
	if !info.Has(tag) {
		return fmt.Errorf("%w: %s", ErrNoSnapshot, tag)
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
