package qemu

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// onlinePlace is the QEMU that has the disks open. Its block nodes are called like
// the disks, and QEMU takes a node's name wherever these commands say "device".
type onlinePlace struct{ c *qmp.Conn }

// snapshotNode is the part of BlockDeviceInfo that tells of snapshots.
type snapshotNode struct {
	Name   string `json:"node-name"`
	Driver string `json:"drv"`
	Image  struct {
		Snapshots []struct {
			Name        string `json:"name"`
			VMStateSize int64  `json:"vm-state-size"`
			DateSec     int64  `json:"date-sec"`
			DateNsec    int64  `json:"date-nsec"`
		} `json:"snapshots"`
	} `json:"image"`
}

func (p onlinePlace) look(ctx context.Context) (foundSnapshots, error) {
	var nodes []snapshotNode
	// Flat leaves out the backing images, which are not the machine's to change.
	if err := p.c.Do(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return nil, err
	}
	found := foundSnapshots{}
	for _, n := range nodes {
		// QEMU names nodes that nobody named with a leading '#'.
		if n.Driver != "qcow2" || strings.HasPrefix(n.Name, "#") {
			continue
		}
		all := make([]driver.ImageSnapshot, 0, len(n.Image.Snapshots))
		for _, s := range n.Image.Snapshots {
			all = append(all, driver.ImageSnapshot{Tag: s.Name, VMStateSize: s.VMStateSize, Date: time.Unix(s.DateSec, s.DateNsec)})
		}
		found[n.Name] = all
	}
	return found, nil
}

// action is one action of a transaction.
type action struct {
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

// take makes the snapshot in one transaction: QEMU stops all writing for it, so
// that the disks belong together, and undoes all of it when one disk fails.
func (p onlinePlace) take(ctx context.Context, draft driver.SnapshotRecord) error {
	actions := make([]action, len(draft.Disks))
	for i, name := range draft.Disks {
		actions[i] = action{"blockdev-snapshot-internal-sync", map[string]any{"device": name, "name": draft.Tag}}
	}
	return p.c.Do(ctx, "transaction", map[string]any{"actions": actions}, nil)
}

// drop deletes the tag disk by disk. This command, unlike the job snapshot-delete,
// leaves nothing to be dismissed, and deletes snapshots with memory just as well.
func (p onlinePlace) drop(ctx context.Context, disks []string, tag string) error {
	if len(disks) == 0 {
		return nil
	}
	for _, name := range disks {
		args := map[string]any{"device": name, "name": tag}
		if err := p.c.Do(ctx, "blockdev-snapshot-delete-internal-sync", args, nil); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
	}
	found, err := p.look(ctx)
	if err != nil {
		return err
	}
	for _, name := range disks {
		if found.find(name, tag) != nil {
			return fmt.Errorf("disk %s: QEMU still lists the snapshot %s", name, tag)
		}
	}
	return nil
}

func (p onlinePlace) job(ctx context.Context, id string) (*driver.Job, error) {
	if id == "" {
		return nil, nil //nolint:nilnil // nothing was begun as a job
	}
	return findJob(ctx, p.c, id)
}

func (p onlinePlace) dismiss(ctx context.Context, id string) error { return dismiss(ctx, p.c, id) }
