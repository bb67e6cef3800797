package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/maqet/maqet/driver"
)

// Info is what an image says of itself.
type Info struct {
	// Path is the absolute path that was asked about.
	Path string
	// Format is qemu-img's name of the format.
	Format string
	// VirtualSize is what a guest sees, ActualSize what the host stores.
	VirtualSize, ActualSize int64
	// Snapshots are the internal snapshots, oldest first.
	Snapshots []driver.ImageSnapshot
	// Backing is the backing file as the image names it; empty without one.
	Backing string
	// Bitmaps are the names of the persistent dirty bitmaps.
	Bitmaps []string
	// DirtyFlag tells that the image was not closed cleanly or is open now.
	DirtyFlag bool

	// ids are the snapshots' ids, in the order of Snapshots.
	ids []string
}

// Has tells whether the image has a snapshot with the tag.
func (n Info) Has(tag string) bool {
	for _, s := range n.Snapshots {
		if s.Tag == tag {
			return true
		}
	}
	return false
}

// Info asks qemu-img about an image and lets it find out the format, which the
// content decides: a guest that writes to a raw disk can make it look like any
// other format. Where the format is known, use InfoAs. An image that is in use is
// read all the same, and then the answer is a moment old.
func (i *Images) Info(ctx context.Context, path string) (Info, error) {
	return i.InfoAs(ctx, path, "")
}

// InfoAs is Info for an image whose format is known; it fails when the image is
// of another one. A file that has not changed since it was last asked about is not
// asked again.
func (i *Images) InfoAs(ctx context.Context, path, format string) (Info, error) {
	q := question{path, format}
	before, regular := stateOf(path)
	if regular {
		if info, ok := i.known.recall(q, before); ok {
			return info, nil
		}
	}
	asked := time.Now()
	info, err := i.info(ctx, path, format, "-U")
	if err == nil && regular && before.restedAt(asked) {
		i.known.keep(q, before, info)
	}
	return info, err
}

// info asks with more flags. Without -U it fails when the image is open for writing.
func (i *Images) info(ctx context.Context, path, format string, flags ...string) (Info, error) {
	const op = "look at"
	path, err := absolute(op, path)
	if err != nil {
		return Info{}, err
	}
	args := append([]string{"info"}, flags...)
	if format != "" {
		args = append(args, "-f", format)
	}
	out, err := i.run(ctx, append(args, "--output=json", path)...)
	if err != nil {
		return Info{}, fail(path, op, err)
	}
	info, err := parseInfo(out)
	if err != nil {
		return Info{}, fail(path, op, err)
	}
	info.Path = path
	return info, nil
}

// imageInfo is the part of qemu-img's ImageInfo that is used here.
type imageInfo struct {
	Format      string `json:"format"`
	VirtualSize int64  `json:"virtual-size"`
	ActualSize  int64  `json:"actual-size"`
	Backing     string `json:"backing-filename"`
	DirtyFlag   bool   `json:"dirty-flag"`
	Snapshots   []struct {
		ID          string `json:"id"`
		Name        string `json:"name"`
		VMStateSize int64  `json:"vm-state-size"`
		DateSec     int64  `json:"date-sec"`
		DateNsec    int64  `json:"date-nsec"`
	} `json:"snapshots"`
	Specific struct {
		Data struct {
			Bitmaps []struct {
				Name string `json:"name"`
			} `json:"bitmaps"`
		} `json:"data"`
	} `json:"format-specific"`
}

func parseInfo(out []byte) (Info, error) {
	var raw imageInfo
	if err := json.Unmarshal(out, &raw); err != nil {
		return Info{}, fmt.Errorf("qemu-img info: decode: %w", err)
	}
	if raw.Format == "" {
		return Info{}, errors.New("qemu-img info: the answer names no format")
	}
	info := Info{
		Format: raw.Format, VirtualSize: raw.VirtualSize, ActualSize: raw.ActualSize,
		Backing: raw.Backing, DirtyFlag: raw.DirtyFlag,
	}
	for _, s := range raw.Snapshots {
		info.ids = append(info.ids, s.ID)
		info.Snapshots = append(info.Snapshots, driver.ImageSnapshot{
			Tag: s.Name, VMStateSize: s.VMStateSize, Date: time.Unix(s.DateSec, s.DateNsec),
		})
	}
	for _, b := range raw.Specific.Data.Bitmaps {
		info.Bitmaps = append(info.Bitmaps, b.Name)
	}
	return info, nil
}
