package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver/qmp"
)

// Powerdown presses the virtual power button. Whether the guest powers off is up to
// the guest. A machine that has ended is no error.
func (d *Driver) Powerdown(ctx context.Context, name string) error {
	return d.order(ctx, name, "power down", "system_powerdown")
}

// Quit tells QEMU to end at once, its disks properly closed. A machine that has
// ended is no error.
func (d *Driver) Quit(ctx context.Context, name string) error {
	return d.order(ctx, name, "quit", "quit")
}

// SetPaused stops the vCPUs, or lets them run. A guest that runs on after its disk had
// failed, and whose disk fails again at once, is an error.
func (d *Driver) SetPaused(ctx context.Context, name string, paused bool) error {
	op := "resume"
	var err error
	if paused {
		op = "pause"
		err = d.command(ctx, name, "stop")
	} else {
		err = d.Visit(ctx, name, d.resume)
	}
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "machine ordered", slog.String("vm", name), slog.String("action", op))
	}
	return asOp(op, name, err)
}

// retryTime is how long is listened to whether the disk of a guest that was let run on
// fails again. QEMU tries the write at once, which takes as long as the host's disk.
const retryTime = time.Second

// resume lets the vCPUs run.
func (d *Driver) resume(ctx context.Context, c *qmp.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, d.timing.Query+retryTime)
	defer cancel()
	var status struct {
		Status string `json:"status"`
	}
	if err := c.Do(ctx, "query-status", nil, &status); err != nil {
		return err
	}
	if status.Status != "io-error" {
		return c.Do(ctx, "cont", nil, nil)
	}
	events := c.Subscribe()
	defer events.Close()
	if err := c.Do(ctx, "cont", nil, nil); err != nil {
		return err
	}
	over := time.NewTimer(retryTime)
	defer over.Stop()
	for {
		select {
		case e, ok := <-events.C():
			if !ok {
				return nil // It has ended, as the next look tells.
			}
			if e.Name == "STOP" {
				return errFailedAgain
			}
		case <-over.C:
			return nil
		case <-ctx.Done():
			return nil // It was let run, which is what was asked for.
		}
	}
}

// errFailedAgain is a guest that QEMU stopped again as soon as it ran.
var errFailedAgain = errors.New("its disk failed again at once; make room or repair the storage first")

// order sends a command that leads to the machine's end.
func (d *Driver) order(ctx context.Context, name, op, command string) error {
	err := d.command(ctx, name, command)
	switch {
	case errors.Is(err, ErrNotRunning):
		return nil
	case errors.Is(err, qmp.ErrClosed) && lifecycle(err) == nil:
		// It was reached, and ended before its answer was read.
		err = nil
	}
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "machine ordered", slog.String("vm", name), slog.String("action", op))
	}
	return asOp(op, name, err)
}

// command sends one command that has no arguments and a short answer.
func (d *Driver) command(ctx context.Context, name, command string) error {
	return d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
		defer cancel()
		return c.Do(ctx, command, nil, nil)
	})
}

// asOp gives an error the words of what was tried. Visit knows only that it could
// not reach the machine.
func asOp(op, name string, err error) error {
	if e := lifecycle(err); e != nil && e.VM == name {
		renamed := *e
		renamed.Op = op
		return &renamed
	}
	return fail(op, name, err, "")
}

// Kill ends QEMU without asking it, as a loss of power would. Only a process that
// was proved to be ours is killed, and through a hold on that very process. A
// machine that has ended is no error.
func (d *Driver) Kill(ctx context.Context, name string) error {
	const op = "kill"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	if err := ctx.Err(); err != nil {
		return fail(op, name, err, "")
	}
	l, err := d.look(name)
	if err != nil {
		return fail(op, name, err, "")
	}
	defer l.close()
	switch l.standing {
	case standingAbsent:
		return nil
	case standingLost, standingForeign:
		return fail(op, name, l.present(), l.presentHint(name))
	case standingOurs:
	}
	if err := l.process.signal(unix.SIGKILL); err != nil {
		return fail(op, name, err, fmt.Sprintf("kill process %d yourself", l.process.pid))
	}
	d.log.LogAttrs(ctx, slog.LevelWarn, "machine killed", slog.String("vm", name), slog.Int("pid", l.process.pid))
	return nil
}
