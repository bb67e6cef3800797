package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
)

// ExportSnapshot writes disks of a snapshot into files that are complete in themselves,
// whether its machine runs or not. They appear under their names when all of them are
// complete, and no file is overwritten; what a killed export has left in a folder, the
// next one into it removes, or any other while the host is up. Told hears how far it is,
// in percent.
func (d *Driver) ExportSnapshot(ctx context.Context, req driver.ExportRequest, told func(percent float64)) ([]driver.CopiedDisk, error) {
	copied, err := d.exportSnapshot(ctx, req, told)
	return copied, fail("export", req.VM.Metadata.Name, err, "")
}

func (d *Driver) exportSnapshot(ctx context.Context, req driver.ExportRequest, told func(percent float64)) (copied []driver.CopiedDisk, err error) {
	var names []string
	temps := map[string]string{}
	for name, path := range req.Files {
		if _, err := os.Lstat(path); err == nil {
			return nil, exportExists(path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if temps[name], err = d.exportTemp(path); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	all, err := d.sources(req.VM, req.Identity, req.Tag, names)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(req.Files[names[0]])
	if err := errors.Join(d.sweepWork(), d.sweepExports(dir)); err != nil {
		return nil, err
	}
	target := func(s *source) disk.Target {
		return disk.Target{Format: req.Format, Compress: req.Compress, Size: s.at.Size}
	}
	if err := d.room(ctx, dir, all, target); err != nil {
		return nil, err
	}
	begun := driver.Work{Kind: driver.WorkExport, VM: req.VM.Metadata.Name, Snapshot: req.Tag, To: dir}
	for _, temp := range temps {
		begun.Temps = append(begun.Temps, temp)
	}
	w, err := d.beginWork(begun)
	if err != nil {
		return nil, err
	}
	defer w.end()
	defer func() {
		for _, temp := range temps {
			_ = os.Remove(temp) // gone already once it was placed
		}
	}()
	copied, err = d.copyAll(ctx, all, func(name string) string { return temps[name] }, target, func(percent float64) {
		w.tell(percent)
		told(percent)
	})
	if err != nil {
		return nil, err
	}
	return copied, placeExports(copied, req.Files)
}

// placeExports gives the files their names, all or none.
func placeExports(copied []driver.CopiedDisk, files map[string]string) error {
	var placed []string
	for i := range copied {
		path := files[copied[i].Disk]
		err := disk.PlaceNew(copied[i].Path, path)
		if errors.Is(err, fs.ErrExist) {
			err = exportExists(path)
		}
		if err != nil {
			for _, p := range placed {
				err = errors.Join(err, os.Remove(p))
			}
			return err
		}
		copied[i].Path = path
		placed = append(placed, path)
	}
	return nil
}

func exportExists(path string) error {
	return &disk.Error{Path: path, Op: "export", Err: fmt.Errorf("%w, and is not overwritten", fs.ErrExist), Hint: "name another file or folder, or move it away"}
}
