package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qga"
	"github.com/maqet/maqet/driver/qmp"
)

// ErrNoAgentPort is wrapped when a machine runs without a port for a guest agent.
var ErrNoAgentPort = errors.New("it was started without a port for a guest agent")

// ErrNotResponsive is wrapped when a guest's vCPUs do not run, so that nothing in it
// can answer.
var ErrNotResponsive = errors.New("its guest does not run")

// chardev is a character device in the answer to query-chardev.
type chardev struct {
	Label string `json:"label"`
	// Open tells whether the guest has opened the port behind it.
	Open bool `json:"frontend-open"`
}

// agentPort is the port of the guest's agent; nil when there is none.
func agentPort(all []chardev) *driver.GAgent {
	i := slices.IndexFunc(all, func(c chardev) bool { return c.Label == agentChardev })
	if i < 0 {
		return nil
	}
	return &driver.GAgent{Open: all[i].Open}
}

// VisitAgent connects to the agent in a machine's guest, calls fn, and disconnects. It
// waits for its turn, and the error names who has it when that takes too long. That no
// agent can answer is found out before it is asked. What fn returns is returned as it
// is; other errors are *driver.LifecycleError.
func (d *Driver) VisitAgent(ctx context.Context, name string, fn func(ctx context.Context, c *qga.Conn) error) error {
	if err := d.agentThere(ctx, name); err != nil {
		return err
	}
	return d.atAgent(ctx, name, d.timing.Agent, fn)
}

// agentThere asks QEMU whether an agent can answer at all.
func (d *Driver) agentThere(ctx context.Context, name string) error {
	const op = "reach the guest agent of"
	var status struct {
		Status string `json:"status"`
	}
	var all []chardev
	err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
		defer cancel()
		return c.DoAll(ctx, qmp.NewCall("query-status", nil, &status), qmp.NewCall("query-chardev", nil, &all))
	})
	port := agentPort(all)
	switch {
	case err != nil:
		return asOp(op, name, err)
	case port == nil:
		return fail(op, name, ErrNoAgentPort, "add guestAgent: {} to its spec, and apply with --allow-restart")
	case status.Status != runStateRunning:
		return fail(op, name, fmt.Errorf("%w: QEMU says %s", ErrNotResponsive, status.Status), "resume it with: maqet resume "+name)
	case !port.Open:
		return fail(op, name, qga.ErrAbsent, "install qemu-guest-agent in the guest and start it")
	default:
		return nil
	}
}

// atAgent visits the agent; answer is how long it may be silent.
func (d *Driver) atAgent(ctx context.Context, name string, answer time.Duration, fn func(ctx context.Context, c *qga.Conn) error) error {
	const op = "reach the guest agent of"
	leave, err := d.enterAgent(ctx, name)
	if err != nil {
		return fail(op, name, err, "")
	}
	defer leave()
	c, err := qga.Dial(ctx, d.layout.AgentSocket(name), qga.Options{Answer: answer})
	if err != nil {
		return fail(op, name, err, "see whether the guest hangs: maqet logs "+name)
	}
	defer func() { _ = c.Close() }() // everything asked was answered, or fn has said why not
	return fn(ctx, c)
}

// enterAgent waits for the lock of the agent's socket.
func (d *Driver) enterAgent(ctx context.Context, name string) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timing.Lock)
	defer cancel()
	lock, err := d.locks.Lock(ctx, d.layout.AgentLock(name))
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Unlock() }, nil // the kernel frees it all the same
}

// AgentShutdown tells the agent in the guest to power off. It is an error when no agent
// can be told, or when it refuses; whether the guest goes is up to the guest.
func (d *Driver) AgentShutdown(ctx context.Context, name string) error {
	const op = "power down through its guest agent"
	// Whatever is in the way, the guest can be asked in other ways, too.
	ctx, cancel := context.WithTimeout(ctx, 2*d.timing.Agent)
	defer cancel()
	err := d.VisitAgent(ctx, name, func(ctx context.Context, c *qga.Conn) error { return c.Shutdown(ctx) })
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "machine ordered", slog.String("vm", name), slog.String("action", op))
	}
	return asOp(op, name, err)
}

// agentAnswers tells whether the agent comes into step within the time of a look.
func (d *Driver) agentAnswers(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, d.timing.AgentLook)
	defer cancel()
	return d.atAgent(ctx, name, d.timing.AgentLook, func(context.Context, *qga.Conn) error { return nil }) == nil
}
