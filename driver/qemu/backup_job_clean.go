package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// clean ends the jobs of a kind of copy, whoever began them, has QEMU close their files,
// and removes the named bitmaps. What is not there is no error.
func (p *copier) clean(ctx context.Context, name string, of driver.Copy, bitmaps []string) error {
	return p.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		events := c.Subscribe()
		defer events.Close()
		prefix := copyPrefix(of.Kind, of.UID)
		if err := endJobs(ctx, c, events, prefix); err != nil {
			return err
		}
		nodes, err := namedNodes(ctx, c)
		if err != nil {
			return err
		}
		var failed error
		for node := range nodes {
			if strings.HasPrefix(node, prefix) {
				failed = errors.Join(failed, c.Do(ctx, "blockdev-del", map[string]any{"node-name": node}, nil))
			}
		}
		return errors.Join(failed, dropBitmaps(ctx, c, nodes, func(name string) bool { return slices.Contains(bitmaps, name) }))
	})
}

// endJobs cancels the jobs whose ids begin so, and dismisses them when they are over.
func endJobs(ctx context.Context, c *qmp.Conn, events *qmp.Subscription, prefix string) error {
	asked := map[string]bool{}
	for {
		var jobs []driver.Job
		if err := c.Do(ctx, "query-jobs", nil, &jobs); err != nil {
			return err
		}
		left := 0
		for _, j := range jobs {
			if !strings.HasPrefix(j.ID, prefix) || j.Status == "null" {
				continue
			}
			left++
			switch {
			case j.Status == jobConcluded:
				if err := dismiss(ctx, c, j.ID); err != nil {
					return err
				}
				left--
			case !asked[j.ID]:
				asked[j.ID] = true
				// One that is over by now, or that another of its group has taken along, refuses.
				if err := c.Do(ctx, "job-cancel", map[string]any{"id": j.ID}, nil); err != nil && !isRefusal(err) {
					return err
				}
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("QEMU's jobs %s... do not end: %w", prefix, ctx.Err())
		case _, open := <-events.C():
			if !open {
				return c.Err()
			}
		}
	}
}

// isRefusal tells that QEMU has answered, with an error.
func isRefusal(err error) bool {
	var refused *qmp.Error
	return errors.As(err, &refused)
}

// dropBitmaps removes bitmaps from the nodes that have them.
func dropBitmaps(ctx context.Context, c *qmp.Conn, nodes map[string]namedNode, which func(name string) bool) error {
	var failed error
	for _, n := range nodes {
		for _, m := range n.Bitmaps {
			if m.Name == "" || !which(m.Name) {
				continue
			}
			if err := c.Do(ctx, "block-dirty-bitmap-remove", map[string]any{"node": n.Name, "name": m.Name}, nil); err != nil {
				failed = errors.Join(failed, fmt.Errorf("disk %s: bitmap %s: %w", n.Name, m.Name, err))
			}
		}
	}
	return failed
}

func (m nodeBitmap) bitmap() driver.Bitmap {
	return driver.Bitmap{
		Name: m.Name, Broken: m.Inconsistent, Persistent: m.Persistent, Recording: m.Recording, Busy: m.Busy, Dirty: m.Count,
	}
}
