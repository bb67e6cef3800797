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
	if err := CheckTag(tag); err != nil {
		return &Error{Path: strings.Join(disks(paths).names(), ", "), Op: op, Err: err}
	}
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
		info, err := i.info(ctx, path, "qcow2")
		if err != nil {
			return nil, fmt.Errorf("%s %s: disk %s: %w", op, tag, name, err)
		}
		infos[name] = info
	}
	return infos, nil
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
	return i.change(ctx, path, "snapshot", "--image-opts", "-q", action, tag, imageOpts(path))
}
