package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

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

// SetPaused stops the vCPUs, or lets them run.
func (d *Driver) SetPaused(ctx context.Context, name string, paused bool) error {
	op, command := "resume", "cont"
	if paused {
		op, command = "pause", "stop"
	}
	err := d.command(ctx, name, command)
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "machine ordered", slog.String("vm", name), slog.String("action", op))
	}
	return asOp(op, name, err)
}

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
