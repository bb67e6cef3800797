package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// undoTag is the snapshot that a revert can be undone from. No machine's snapshot
// can have this name, since a name has no dot.
const undoTag = "maqet.undo"

// rollbackTime is how long undoing may take beyond a context that has ended.
const rollbackTime = 5 * time.Minute

// disks are the images of one machine, by disk name.
type disks map[string]string

// names are the disks' names in a fixed order.
func (d disks) names() []string { return slices.Sorted(maps.Keys(d)) }

// CheckTag says why tag cannot name a snapshot; nil when it can. QEMU looks a
// snapshot up by its id first, and ids are numbers: a tag of digits only would
// some day mean another snapshot.
func CheckTag(tag string) error {
	switch {
	case tag == "":
		return errors.New("the snapshot has no name")
	case strings.Trim(tag, "0123456789") == "":
		return fmt.Errorf("%q consists of digits only, and QEMU would take it for a snapshot's number; use a name with a letter", tag)
	case strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(tag) > 255:
		return fmt.Errorf("%q is no snapshot's name", tag)
	default:
		return nil
	}
}

// CreateSnapshot makes an internal snapshot on every image, or on none: when one
// fails, those already made are deleted. Paths are by disk name, for messages. No
// image may be open elsewhere, and none may have the tag already.
func (i *Images) CreateSnapshot(ctx context.Context, paths map[string]string, tag string) error {
	const op = "snapshot"
	infos, err := i.preflight(ctx, op, paths, tag)
	if err != nil {
		return err
	}
	for _, name := range disks(paths).names() {
		if infos[name].Has(tag) {
			return &Error{
				Path: infos[name].Path, Op: op, Err: fmt.Errorf("disk %s: %w: %s", name, ErrSnapshotExists, tag),
				Hint: "delete that snapshot first, or use another name",
			}
		}
	}
	var made []string
	for _, name := range disks(paths).names() {
		path := infos[name].Path
		if err := i.snapshot(ctx, "-c", tag, path); err != nil {
			err = fail(path, op, fmt.Errorf("disk %s: %w", name, err))
			// A qemu-img that was killed may have come as far as writing the tag.
			return i.rollback(ctx, err, append(made, path), func(ctx context.Context, path string) error {
				return i.deleteTag(ctx, path, tag)
			})
		}
		made = append(made, path)
	}
	return nil
}

// DeleteSnapshot deletes the tag from every image that has it. An image without
// it is no error, so that a delete that was cut off can be asked for again.
func (i *Images) DeleteSnapshot(ctx context.Context, paths map[string]string, tag string) error {
	const op = "delete snapshot"
	if tag == "" {
		return &Error{Path: tag, Op: op, Err: errors.New("the snapshot has no name")}
	}
	for _, name := range disks(paths).names() {
		path, err := absolute(op, paths[name])
		if err != nil {
			return err
		}
		if err := i.deleteTag(ctx, path, tag); err != nil {
			return wrap(path, op, fmt.Errorf("disk %s: %w", name, err))
		}
	}
	return nil
}

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
	for _, name := range disks(paths).names() {
		if infos[name].Has(undoTag) {
			continue // a revert was killed here: this is the content it began with
		}
		if err := i.snapshot(ctx, "-c", undoTag, infos[name].Path); err != nil {
			return i.rollback(ctx, fail(infos[name].Path, op, err), all, i.dropUndo)
		}
	}
	for _, name := range disks(paths).names() {
		if err := i.snapshot(ctx, "-a", tag, infos[name].Path); err != nil {
			err = fail(infos[name].Path, op, fmt.Errorf("disk %s: %w", name, err))
			return i.rollback(ctx, err, all, i.undo)
		}
	}
	return i.rollback(ctx, nil, all, i.dropUndo)
}

// preflight looks at every image: it must be a qcow2 that nobody has open.
func (i *Images) preflight(ctx context.Context, op string, paths map[string]string, tag string) (map[string]Info, error) {
	if len(paths) == 0 {
		return nil, &Error{Path: "no disk", Op: op, Err: errors.New("the machine has no disk that can hold a snapshot"), Hint: "give it a qcow2 disk"}
	}
	infos := make(map[string]Info, len(paths))
	for _, name := range disks(paths).names() {
		path, err := absolute(op, paths[name])
		if err != nil {
			return nil, err
		}
		if err := CheckTag(tag); err != nil {
			return nil, &Error{Path: path, Op: op, Err: err}
		}
		info, err := i.info(ctx, path, "qcow2")
		if err != nil {
			return nil, fmt.Errorf("%s %s: disk %s: %w", op, tag, name, err)
		}
		infos[name] = info
	}
	return infos, nil
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
		return ""
	}
}

// deleteTag deletes a tag from one image, if it is there.
func (i *Images) deleteTag(ctx context.Context, path, tag string) error {
	info, err := i.info(ctx, path, "qcow2")
	if err != nil {
		return err
	}
	// A name may occur more than once when it was not maqet that made it.
	for _, s := range info.Snapshots {
		if s.Tag != tag {
			continue
		}
		if err := i.snapshot(ctx, "-d", tag, path); err != nil {
			return err
		}
	}
	return nil
}

func (i *Images) dropUndo(ctx context.Context, path string) error {
	return i.deleteTag(ctx, path, undoTag)
}

// undo gives an image the content back that it had before a revert.
func (i *Images) undo(ctx context.Context, path string) error {
	if err := i.snapshot(ctx, "-a", undoTag, path); err != nil {
		return err
	}
	return i.dropUndo(ctx, path)
}

// rollback does back for every path, also when ctx has ended, and returns cause
// joined with whatever failed.
func (i *Images) rollback(ctx context.Context, cause error, paths []string, back func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	for _, path := range paths {
		if err := back(ctx, path); err != nil {
			cause = errors.Join(cause, wrap(path, "clean up", err))
		}
	}
	return cause
}

// snapshot runs qemu-img snapshot with one of -c, -a and -d.
func (i *Images) snapshot(ctx context.Context, action, tag, path string) error {
	_, err := i.run(ctx, "snapshot", "--image-opts", "-q", action, tag, imageOpts(path))
	return err
}
