package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const (
	// written is how much of their disks the guests have filled with random bytes before
	// the first backup, and rewritten how much they write before each further one, in MiB.
	written   = 256
	rewritten = 16
)

// openBackup compares backups of a running guest: whole ones, or what has changed.
func openBackup(ctx context.Context, lab *Lab, full bool) (Bench, error) {
	name := "backup" + strconv.FormatBool(full)
	target := filepath.Join(lab.dir, name, "target")
	if err := os.MkdirAll(target, 0o700); err != nil {
		return Bench{}, fmt.Errorf("make the target of backups: %w", err)
	}
	g, err := openGuests(ctx, lab, name, false, fmt.Sprintf("  backup: {target: %q}\n", target))
	if err != nil {
		return Bench{}, err
	}
	b := &backing{guests: g}
	ours := []string{"backup", "now", guestName}
	if full {
		ours = append(ours, "--full")
	}
	err = errors.Join(b.write(ctx, g.ourSerial(), written), b.write(ctx, g.rawSerial(), written))
	if err == nil && !full {
		err = errors.Join(g.maqet(ctx, ours...), b.take(ctx, "full", qmpCommand{"block-dirty-bitmap-add", map[string]any{"node": diskName, "name": rawBitmap}}))
	}
	if err != nil {
		return Bench{}, errors.Join(err, g.close(ctx))
	}
	prepare := func(serial string) func(context.Context) error {
		if full {
			return nil
		}
		return func(ctx context.Context) error { return b.write(ctx, serial, rewritten) }
	}
	sync := "bitmap"
	if full {
		sync = "full"
	}
	return Bench{
		Ours:  Half{Before: prepare(g.ourSerial()), Do: func(ctx context.Context) error { return g.maqet(ctx, ours...) }},
		Raw:   Half{Before: prepare(g.rawSerial()), Do: func(ctx context.Context) error { return b.take(ctx, sync) }},
		Close: g.close,
	}, nil
}

// rawBitmap notes in the twin what has changed.
const rawBitmap = "raw"

// backing makes backups of the twin.
type backing struct {
	*guests
	taken int
}

// write has a guest write random bytes to the beginning of its disk.
func (b *backing) write(ctx context.Context, serial string, mebibytes int) error {
	return tell(ctx, serial, fmt.Sprintf("dd if=/dev/urandom of=/dev/vda bs=1M count=%d conv=fsync", mebibytes))
}

// take backs the twin up into a new file, after some commands. As of maqet's, the file is
// on the disk then and its digest is known.
func (b *backing) take(ctx context.Context, sync string, first ...qmpCommand) error {
	b.taken++
	path := filepath.Join(b.raw, fmt.Sprintf("backup%d.qcow2", b.taken))
	if err := b.lab.run(ctx, nil, "qemu-img", "create", "-q", "-f", "qcow2", path, rawDiskSize); err != nil {
		return err
	}
	args := map[string]any{"job-id": "raw", "device": diskName, "target": "target", "sync": sync, "auto-dismiss": false}
	if sync == "bitmap" {
		args["bitmap"], args["bitmap-mode"] = rawBitmap, "on-success"
	}
	file := map[string]any{"driver": "file", "filename": path}
	_, err := b.job(ctx, append(first,
		qmpCommand{"blockdev-add", map[string]any{"driver": "qcow2", "node-name": "target", "file": file}},
		qmpCommand{"blockdev-backup", args},
		qmpCommand{"blockdev-del", map[string]any{"node-name": "target"}},
	)...)
	if err != nil {
		return err
	}
	return b.lab.run(ctx, nil, "sh", "-c", `sync "$0" && sha256sum "$0"`, path)
}
