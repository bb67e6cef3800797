package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// copier copies the disks of running machines into files, by backup jobs of their QEMU.
//
// A job and the block node of the file it fills are called maqet-KIND-UID8-..., so that
// whoever comes after a maqet that was killed finds them. The file is opened here and
// handed to QEMU as a descriptor: QEMU needs no right to the folder, whoever it runs as,
// and no path is written into a command.
type copier struct {
	*snapshots
	// await returns when a job may have changed, or the process has ended.
	await func(ctx context.Context, name string, what driver.Awaited) error
}

// copyRoom is what a file is given beyond what was measured for what the guest may write
// between that and the moment of the copy.
const copyRoom = 16 << 20

// copyPrefix begins the names of the jobs and nodes of a kind of copy.
func copyPrefix(kind, uid string) string {
	short, _, _ := strings.Cut(uid, "-")
	return "maqet-" + kind + "-" + short + "-"
}

// begin makes the files and begins the jobs, all at one moment or none of them.
func (p *copier) begin(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.CopyRequest) (made driver.Copy, err error) {
	if obs.Presence != driver.Alive || obs.Guest == nil || obs.Guest.Brief {
		return made, fmt.Errorf("%w: %s", ErrNotRunning, obs.Message)
	}
	made = driver.Copy{
		Kind: req.Kind, UID: obs.Guest.UID, PID: obs.PID, Started: obs.StartedAt, QEMU: obs.Guest.Version, RateLimit: req.RateLimit,
	}
	files, err := p.files(ctx, vm, req, &made)
	defer func() {
		for _, f := range files {
			_ = f.Close() // QEMU has its own descriptor by now
		}
		if err != nil {
			err = errors.Join(err, p.undo(ctx, vm.Metadata.Name, req, made))
		}
	}()
	if err != nil {
		return made, err
	}
	err = p.visit(ctx, vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error {
		for i, f := range files {
			if err := openTarget(ctx, c, f, made.Disks[i].Node); err != nil {
				return fmt.Errorf("disk %s: %w", made.Disks[i].Name, err)
			}
		}
		return nil
	})
	if err != nil {
		return made, err
	}
	err = p.begun(ctx, vm, obs, req, &made)
	return made, err
}

// begun freezes, begins all jobs in one transaction, and thaws.
func (p *copier) begun(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.CopyRequest, made *driver.Copy) error {
	as := driver.SnapshotIntent{Method: manifest.SnapshotDisk, Quiesce: req.Quiesce}
	draft := newRecord(vm, obs, as)
	quiet, err := p.quiesce(ctx, vm, obs, as, &draft)
	if err != nil {
		return err
	}
	defer func() { _ = quiet.thaw(ctx) }() // it is, mostly, and else the next pass does it
	err = p.visit(ctx, vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error {
		made.At = time.Now().UTC()
		return c.Do(ctx, "transaction", map[string]any{"actions": copyActions(req, *made)}, nil)
	})
	if broken := p.quieted(ctx, quiet, as, &draft); err == nil {
		err = broken
	}
	made.Consistency, made.NotQuiesced, made.Frozen = draft.Consistency, draft.NotQuiesced, draft.Frozen
	return err
}

// files makes the files that are copied to, and takes the room that they may need.
func (p *copier) files(ctx context.Context, vm *manifest.VirtualMachine, req driver.CopyRequest, made *driver.Copy) (files []*os.File, err error) {
	var nodes map[string]namedNode
	err = p.visit(ctx, vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error {
		nodes, err = namedNodes(ctx, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	prefix := copyPrefix(req.Kind, made.UID)
	for i, d := range req.Disks {
		node, ok := nodes[d.Name]
		if !ok {
			return files, fmt.Errorf("QEMU has no disk %s", d.Name)
		}
		f, err := p.images.CreateTarget(ctx, d.Path, node.Image.Size, d.Backing)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		made.Disks = append(made.Disks, driver.CopyMade{
			Name: d.Name, Path: d.Path, Size: node.Image.Size, Sync: node.sync(d), Job: prefix + d.Name, Node: prefix + strconv.Itoa(i),
		})
		if err := p.images.Reserve(f, p.room(ctx, vm, d, node)); err != nil {
			return files, fmt.Errorf("disk %s: %w", d.Name, err)
		}
	}
	return files, nil
}

// room is how much a copy of a disk may need. A file that ran full would fail the
// guest's own writes, which wait until what they overwrite is copied.
func (p *copier) room(ctx context.Context, vm *manifest.VirtualMachine, d driver.CopyDisk, node namedNode) int64 {
	most := node.Image.Size
	if d.Since != "" {
		for _, m := range node.Bitmaps {
			if m.Name == d.Since {
				return min(most, m.Count) + copyRoom
			}
		}
		return most
	}
	if elsewhere(vm, d.Name) {
		return most
	}
	needed, err := p.images.Needed(ctx, p.path(vm, d.Name), manifest.DiskFormat(node.Driver))
	if err != nil {
		p.log.DebugContext(ctx, "measuring a disk failed; its whole size is reserved", "disk", d.Name, "err", err)
		return most
	}
	return min(most, needed) + copyRoom
}

// openTarget gives QEMU a file and has it opened as a block node. Its backing file is
// not opened: a job only ever writes whole clusters.
func openTarget(ctx context.Context, c *qmp.Conn, f *os.File, node string) error {
	var set struct {
		ID int `json:"fdset-id"`
	}
	if err := c.DoWithFile(ctx, "add-fd", map[string]any{"opaque": node}, &set, f); err != nil {
		return err
	}
	err := c.Do(ctx, "blockdev-add", map[string]any{
		"driver": "qcow2", "node-name": node, "backing": nil, "discard": "unmap",
		"file": map[string]any{"driver": "file", "filename": "/dev/fdset/" + strconv.Itoa(set.ID)},
	}, nil)
	// QEMU keeps the set for as long as the node is there.
	return errors.Join(err, c.Do(ctx, "remove-fd", map[string]any{"fdset-id": set.ID}, nil))
}

// copyActions are the transaction that begins a copy.
func copyActions(req driver.CopyRequest, made driver.Copy) []action {
	var actions []action
	for i, d := range req.Disks {
		to := made.Disks[i]
		job := map[string]any{
			"job-id": to.Job, "device": d.Name, "target": to.Node, "sync": to.Sync, "auto-dismiss": false,
		}
		if to.Sync == syncBitmap {
			job["bitmap"], job["bitmap-mode"] = d.Since, "never"
		}
		if req.RateLimit > 0 {
			job["speed"] = share(req.RateLimit, len(req.Disks))
		}
		if d.Mark != "" {
			actions = append(actions, action{"block-dirty-bitmap-add", map[string]any{"node": d.Name, "name": d.Mark, "persistent": true}})
		}
		actions = append(actions, action{"blockdev-backup", job})
	}
	return actions
}

// share is the speed of each of several jobs that keep to a limit together.
func share(limit int64, jobs int) int64 { return max(limit/int64(jobs), 1) }

// The words of QEMU for what a job copies.
const (
	syncFull   = "full"
	syncTop    = "top"
	syncBitmap = "bitmap"
)

// sync says what is to be copied of a node. What an image without a backing file has not
// allocated is zero in the copy too, and need not take a part of the speed.
func (n namedNode) sync(d driver.CopyDisk) string {
	switch {
	case d.Since != "":
		return syncBitmap
	case n.Driver == string(manifest.FormatQcow2) && n.Backing == "" && n.Image.Backing == "":
		return syncTop
	default:
		return syncFull
	}
}

// undo takes back what begin has done before it failed.
func (p *copier) undo(ctx context.Context, name string, req driver.CopyRequest, made driver.Copy) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	err := p.clean(ctx, name, driver.Copy{Kind: req.Kind, UID: made.UID}, marks(req))
	if errors.Is(err, ErrNotRunning) {
		err = nil
	}
	for _, d := range made.Disks {
		if removed := os.Remove(d.Path); removed != nil && !errors.Is(removed, os.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}
	return err
}

// marks are the bitmaps that a request adds.
func marks(req driver.CopyRequest) []string {
	var names []string
	for _, d := range req.Disks {
		if d.Mark != "" && !slices.Contains(names, d.Mark) {
			names = append(names, d.Mark)
		}
	}
	return names
}

// namedNode is a block node as query-named-block-nodes has it.
type namedNode struct {
	Name   string `json:"node-name"`
	Driver string `json:"drv"`
	Image  struct {
		Size    int64  `json:"virtual-size"`
		Backing string `json:"backing-filename"`
	} `json:"image"`
	// Backing is the file below it; empty without one.
	Backing string       `json:"backing_file"`
	Bitmaps []nodeBitmap `json:"dirty-bitmaps"`
}

type nodeBitmap struct {
	Name         string `json:"name"`
	Count        int64  `json:"count"`
	Persistent   bool   `json:"persistent"`
	Recording    bool   `json:"recording"`
	Busy         bool   `json:"busy"`
	Inconsistent bool   `json:"inconsistent"`
}

// namedNodes asks for all nodes, by name.
func namedNodes(ctx context.Context, c *qmp.Conn) (map[string]namedNode, error) {
	var nodes []namedNode
	// Flat leaves out the backing images of each.
	if err := c.Do(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return nil, err
	}
	all := make(map[string]namedNode, len(nodes))
	for _, n := range nodes {
		all[n.Name] = n
	}
	return all, nil
}

// copyError makes a LifecycleError of err, unless it is one or nil.
func copyError(vm, op string, err error) error {
	if err == nil || lifecycle(err) != nil {
		return err
	}
	var refused *qmp.Error
	var job *JobError
	return &driver.LifecycleError{VM: vm, Op: op, Err: err, Refused: errors.As(err, &refused) || errors.As(err, &job)}
}
