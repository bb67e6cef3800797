package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// storageCases are the comparisons of snapshots and images.
func storageCases() []Case {
	return []Case{
		{
			Name: "snapshot-full", Does: "maqet snapshot create of a booted guest, with memory", Against: "snapshot-save, until its job has ended",
			Aim: "≤ 1.1", Open: openSnapshotFull,
		},
		{
			Name: "snapshot-disk", Does: "maqet snapshot create --method Disk of it", Against: "the same transaction",
			Open: openSnapshotDisk,
		},
		{
			Name: "restore-full", Does: "maqet snapshot restore of it while it runs, no safety snapshot", Against: "stop, snapshot-load until its job has ended, cont",
			Aim: "≤ 1.1", Open: openRestore,
		},
		{
			Name: "snapshot-pause", Does: "how long the guest stands still per GiB of memory that is saved", Against: "the same of snapshot-save",
			Aim: "≤ 1.1", Heavy: true, Open: openPause,
		},
		{
			Name: "backup-full", Does: fmt.Sprintf("maqet backup now --full of a running guest, %d MiB on its disk", written), Against: "qemu-img create, blockdev-backup until its job has ended, sync, sha256sum",
			Aim: "≤ 1.1", Heavy: true, Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openBackup(ctx, lab, true) },
		},
		{
			Name: "backup-increment", Does: fmt.Sprintf("maqet backup now of it, %d MiB of which have changed", rewritten), Against: "the same with a bitmap",
			Heavy: true, Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openBackup(ctx, lab, false) },
		},
		{
			Name: "image-pull", Does: fmt.Sprintf("maqet image pull of %d MiB over HTTP", pullSize>>20), Against: "curl, then sha256sum",
			Aim: "≤ 1.1", Heavy: true, Open: openPull,
		},
	}
}

// tags are names that were not used before.
type tags int

func (n *tags) next() string {
	*n++
	return "t" + strconv.Itoa(int(*n))
}

// openSnapshotFull compares snapshots with memory. Each is deleted before the next.
func openSnapshotFull(ctx context.Context, lab *Lab) (Bench, error) {
	g, err := openGuests(ctx, lab, "full", false)
	if err != nil {
		return Bench{}, err
	}
	var tag tags
	now := ""
	job := func(kind string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := g.job(ctx, snapshotJob(kind, now))
			return err
		}
	}
	return Bench{
		Ours: Half{
			Before: func(context.Context) error { now = tag.next(); return nil },
			Do:     func(ctx context.Context) error { return g.maqet(ctx, "snapshot", "create", guestName, now) },
			After:  func(ctx context.Context) error { return g.maqet(ctx, "snapshot", "delete", guestName, now) },
		},
		Raw:   Half{Do: job("snapshot-save"), After: job("snapshot-delete")},
		Close: g.close,
	}, nil
}

// openSnapshotDisk compares snapshots of the disk alone.
func openSnapshotDisk(ctx context.Context, lab *Lab) (Bench, error) {
	g, err := openGuests(ctx, lab, "disk", false)
	if err != nil {
		return Bench{}, err
	}
	var tag tags
	now := ""
	of := func() map[string]any { return map[string]any{"device": diskName, "name": now} }
	return Bench{
		Ours: Half{
			Before: func(context.Context) error { now = tag.next(); return nil },
			Do: func(ctx context.Context) error {
				return g.maqet(ctx, "snapshot", "create", guestName, now, "--method", "Disk")
			},
			After: func(ctx context.Context) error { return g.maqet(ctx, "snapshot", "delete", guestName, now) },
		},
		Raw: Half{
			Do: func(ctx context.Context) error {
				action := map[string]any{"type": "blockdev-snapshot-internal-sync", "data": of()}
				_, err := g.job(ctx, qmpCommand{"transaction", map[string]any{"actions": []any{action}}})
				return err
			},
			After: func(ctx context.Context) error {
				_, err := g.job(ctx, qmpCommand{"blockdev-snapshot-delete-internal-sync", of()})
				return err
			},
		},
		Close: g.close,
	}, nil
}

// openRestore compares going back to a snapshot with memory in a running QEMU.
func openRestore(ctx context.Context, lab *Lab) (Bench, error) {
	const tag = "base"
	g, err := openGuests(ctx, lab, "restore", false)
	if err != nil {
		return Bench{}, err
	}
	_, err = g.job(ctx, snapshotJob("snapshot-save", tag))
	if err = errors.Join(err, g.maqet(ctx, "snapshot", "create", guestName, tag)); err != nil {
		return Bench{}, errors.Join(err, g.close(ctx))
	}
	return Bench{
		Ours: Half{
			Do: func(ctx context.Context) error {
				return g.maqet(ctx, "snapshot", "restore", guestName, tag, "--no-safety")
			},
			After: g.check,
		},
		Raw: Half{
			Do: func(ctx context.Context) error {
				_, err := g.job(ctx, qmpCommand{"stop", nil}, snapshotJob("snapshot-load", tag), qmpCommand{"cont", nil})
				return err
			},
			After: func(ctx context.Context) error { return g.rawclient(ctx, "status", g.twin.Socket) },
		},
		Close: g.close,
	}, nil
}

// openPause compares how long a guest stands still for the memory that is written.
func openPause(ctx context.Context, lab *Lab) (Bench, error) {
	g, err := openGuests(ctx, lab, "pause", true)
	if err != nil {
		return Bench{}, err
	}
	var tag tags
	now := ""
	return Bench{
		Ours: Half{
			Before: func(context.Context) error { now = tag.next(); return nil },
			Value:  func(ctx context.Context) (float64, error) { return g.pausedByMaqet(ctx, now) },
			After:  func(ctx context.Context) error { return g.maqet(ctx, "snapshot", "delete", guestName, now) },
		},
		Raw: Half{
			Value: func(ctx context.Context) (float64, error) { return g.pausedByTwin(ctx, now) },
			After: func(ctx context.Context) error {
				_, err := g.job(ctx, snapshotJob("snapshot-delete", now))
				return err
			},
		},
		Close: g.close,
	}, nil
}

// pausedByMaqet takes a snapshot and returns what maqet says of the pause, in seconds
// per GiB.
func (g *guests) pausedByMaqet(ctx context.Context, tag string) (float64, error) {
	if err := g.maqet(ctx, "snapshot", "create", guestName, tag); err != nil {
		return 0, err
	}
	text, err := g.output(ctx, "snapshot", "list", guestName, "-o", "json")
	if err != nil {
		return 0, err
	}
	var all []struct {
		Name       string `json:"name"`
		MemorySize string `json:"memorySize"`
		Paused     string `json:"paused"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return 0, fmt.Errorf("read what maqet snapshot list printed: %w", err)
	}
	for _, s := range all {
		if s.Name == tag {
			size, err := strconv.ParseFloat(s.MemorySize, 64)
			if err != nil {
				return 0, fmt.Errorf("read the size of the memory in a snapshot: %w", err)
			}
			return perGiB(s.Paused, size)
		}
	}
	return 0, fmt.Errorf("maqet snapshot list does not name %s:\n%s", tag, text)
}

// pausedByTwin is the same by QEMU's own events, and by what qemu-img says of the size.
func (g *guests) pausedByTwin(ctx context.Context, tag string) (float64, error) {
	said, err := g.job(ctx, snapshotJob("snapshot-save", tag))
	if err != nil {
		return 0, err
	}
	text, err := exec.CommandContext(ctx, "qemu-img", "info", "-U", "--output=json", g.disk(g.twin)).Output()
	if err != nil {
		return 0, fmt.Errorf("look into the raw machine's disk: %w", err)
	}
	var info struct {
		Snapshots []struct {
			Name string  `json:"name"`
			Size float64 `json:"vm-state-size"`
		} `json:"snapshots"`
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return 0, fmt.Errorf("read what qemu-img printed: %w", err)
	}
	for _, s := range info.Snapshots {
		if s.Name == tag {
			return perGiB(strings.TrimPrefix(strings.TrimSpace(said), "paused "), s.Size)
		}
	}
	return 0, fmt.Errorf("the raw machine's disk holds no snapshot %s", tag)
}

// perGiB is a pause in seconds for each GiB of a size in bytes.
func perGiB(pause string, size float64) (float64, error) {
	took, err := time.ParseDuration(pause)
	if err != nil || took <= 0 || size <= 0 {
		return 0, fmt.Errorf("a pause of %q for %.0f bytes is none: %w", pause, size, errors.Join(err))
	}
	return took.Seconds() / (size / (1 << 30)), nil
}
