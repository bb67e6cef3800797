package qemu

import (
	"context"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// DropBitmaps removes bitmaps from the disks of a running machine.
func (d *Driver) DropBitmaps(ctx context.Context, name string, which func(bitmap string) bool) error {
	err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		nodes, err := namedNodes(ctx, c)
		if err != nil {
			return err
		}
		return dropBitmaps(ctx, c, nodes, which)
	})
	return copyError(name, "remove bitmaps of", err)
}

func (d *Driver) copier() *copier {
	return &copier{snapshots: d.snapshots(), await: func(ctx context.Context, name string, what driver.Awaited) error {
		return d.Await(ctx, name, nil, what)
	}}
}
