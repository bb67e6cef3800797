package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/maqet/maqet/internal/filelock"
)

// maxBackups is how many backups a controller makes at once. They read whole disks.
const maxBackups = 4

// backUp has a backup made that is due. It is made beside everything else: no worker
// waits for it, and the machine's lock is held only while it begins.
func (c *Controller) backUp(ctx context.Context, r *run) {
	m := r.want.Machine
	if m == nil || r.result.Gone {
		return
	}
	slot, due := dueBackup(m, &r.last, c.engine.cfg.Now())
	if !due {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backingUp[r.name] {
		return
	}
	c.backingUp[r.name] = true
	c.goroutines.Go(func() { c.makeBackup(ctx, r.name, slot) })
}

// makeBackup makes one backup, when few others are being made, and has the machine looked
// at again.
func (c *Controller) makeBackup(ctx context.Context, name string, slot time.Time) {
	again := func() {}
	defer func() {
		c.mu.Lock()
		delete(c.backingUp, name)
		c.mu.Unlock()
		again() // once another one may be begun
	}()
	select {
	case c.backups <- struct{}{}:
		defer func() { <-c.backups }()
	case <-ctx.Done():
		return
	}
	c.log.Info("a backup is made", "vm", name, "slot", slot)
	report, err := c.engine.Backup(ctx, name, BackupOptions{Scheduled: slot})
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, filelock.ErrHeld) || errors.Is(err, ErrBusy):
		// Somebody else is at the machine. Nothing tells of the end of that.
		again = func() { c.queue.AddAfter(name, c.engine.cfg.Timing.Query) }
		return
	case err != nil:
		c.log.Warn("a backup could not be made", "vm", name, "err", err)
	default:
		c.log.Info("a backup is there", "vm", name, "run", report.Run.ID, "type", report.Run.Type, "why", report.Run.Why)
	}
	again = func() { c.queue.Add(name) }
}
