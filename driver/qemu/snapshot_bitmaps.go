package qemu

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver/qmp"
)

// Going back to a snapshot is refused by QEMU for a disk that has a dirty bitmap, since
// that would tell of other content afterwards. So the bitmaps go first, once nothing
// else is in the way: each one that goes costs the next backup of its disk a full.

// bitmapsOf are the dirty bitmaps of the named block nodes, by node. One that a job
// works with is an error, since nothing may take it from under the job.
func bitmapsOf(ctx context.Context, c *qmp.Conn, names []string) (map[string][]string, error) {
	var nodes []struct {
		Name    string `json:"node-name"`
		Bitmaps []struct {
			Name string `json:"name"`
			Busy bool   `json:"busy"`
		} `json:"dirty-bitmaps"`
	}
	if err := c.Do(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, n := range nodes {
		if !slices.Contains(names, n.Name) {
			continue
		}
		for _, b := range n.Bitmaps {
			// Those of jobs alone have no name.
			if b.Name == "" || b.Busy {
				return nil, fmt.Errorf("%w: disk %s: a job works with its dirty bitmap %q; wait until that is over: maqet jobs", errNotLoadable, n.Name, b.Name)
			}
			found[n.Name] = append(found[n.Name], b.Name)
		}
	}
	return found, nil
}

// removeBitmaps removes the named bitmaps, all or none, and looks whether they are gone.
func removeBitmaps(ctx context.Context, c *qmp.Conn, bitmaps map[string][]string) error {
	var actions []action
	var disks []string
	for name, all := range bitmaps {
		disks = append(disks, name)
		for _, bitmap := range all {
			actions = append(actions, action{"block-dirty-bitmap-remove", map[string]any{"node": name, "name": bitmap}})
		}
	}
	if len(actions) == 0 {
		return nil
	}
	if err := c.Do(ctx, "transaction", map[string]any{"actions": actions}, nil); err != nil {
		return fmt.Errorf("remove the dirty bitmaps: %w", err)
	}
	left, err := bitmapsOf(ctx, c, disks)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: QEMU still has the dirty bitmaps of %s", errNotLoadable, strings.Join(disks, ", "))
	}
	return err
}
