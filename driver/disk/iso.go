package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"github.com/maqet/maqet/internal/durable"
)

// WriteISO replaces path by an ISO 9660 image with the volume label and the files,
// all in its root, and returns when it will survive a loss of power. The names are
// in it as they are given, by Rock Ridge and Joliet. Only the user himself may read
// the image.
//
// Scratch is a folder of the caller's own in which the tree is laid out. What an
// earlier call that was killed left there is removed first, and the folder is gone
// when WriteISO returns.
func WriteISO(path, scratch, label string, files map[string][]byte) (err error) {
	const op = "write"
	if err := os.RemoveAll(scratch); err != nil {
		return fail(path, op, err)
	}
	tree := filepath.Join(scratch, "tree")
	if err := os.MkdirAll(tree, 0o700); err != nil {
		return fail(path, op, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Base(name) != name {
			return fail(path, op, fmt.Errorf("%q is no name of a file in the root of an image", name))
		}
		if err := os.WriteFile(filepath.Join(tree, name), files[name], 0o600); err != nil {
			return fail(path, op, err)
		}
	}
	image, err := os.OpenFile(filepath.Join(scratch, "image"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // in the caller's folder
	if err != nil {
		return fail(path, op, err)
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	text, err := buildISO(image, tree, label)
	if err != nil {
		return fail(path, op, err)
	}
	if err := durable.WriteFile(path, text, 0); err != nil {
		return fail(path, op, err)
	}
	return nil
}

// buildISO makes the image of a tree.
func buildISO(image *os.File, tree, label string) ([]byte, error) {
	fsys, err := iso9660.Create(file.New(fs.File(image), false), 0, 0, 0, tree)
	if err != nil {
		return nil, err
	}
	if err := fsys.Finalize(iso9660.FinalizeOptions{RockRidge: true, Joliet: true, VolumeIdentifier: label}); err != nil {
		return nil, err
	}
	if _, err := image.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(image)
	// A drive has whole sectors only, so the last file's end would be cut off.
	if rest := len(text) % isoSector; rest > 0 {
		text = append(text, make([]byte, isoSector-rest)...)
	}
	return text, err
}

// isoSector is the size of a sector of an optical disc.
const isoSector = 2048
