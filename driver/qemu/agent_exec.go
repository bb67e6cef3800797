package qemu

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/maqet/maqet/driver/qga"
	"github.com/maqet/maqet/internal/filelock"
)

// MaxExecInput is the most that a program in a guest is given to read. The agent takes
// it in one command, which it keeps in memory.
const MaxExecInput = 16 << 20

// ExecRequest is a program to be run in a guest.
type ExecRequest struct {
	// Command is the program and its arguments. A name without a slash is looked up by
	// the agent.
	Command []string
	// Env are variables as NAME=VALUE, which replace the agent's own environment; empty
	// leaves it as it is.
	Env []string
	// Input is what it reads, at most MaxExecInput; nil is nothing.
	Input []byte
}

// ExecResult is how a program ended.
type ExecResult struct {
	// PID is its number in the guest.
	PID int64
	// ExitCode is its exit code, Signal the signal that ended it; 0 when none did.
	ExitCode, Signal int
	// Out and Err are what it wrote.
	Out, Err []byte
	// Truncated tells that it wrote more than the agent keeps, of either.
	Truncated bool
}

// GivenUpError is a program in a guest that was not waited for to the end.
type GivenUpError struct {
	// PID is its number in the guest; 0 when the agent's answer was not waited for.
	PID int64
	// Ended tells that it was ended in the guest; otherwise it may run on.
	Ended bool
	// Err is why it was given up: the end of a context.
	Err error
}

// Error says what became of the program.
func (e *GivenUpError) Error() string {
	switch {
	case e.Ended:
		return fmt.Sprintf("the command was ended in the guest: %v", e.Err)
	case e.PID == 0:
		return fmt.Sprintf("the command may run on in the guest: %v", e.Err)
	default:
		return fmt.Sprintf("the command may run on in the guest as process %d: %v", e.PID, e.Err)
	}
}

// Unwrap is why it was given up.
func (e *GivenUpError) Unwrap() error { return e.Err }

const (
	// execInterval is the time between the first two questions whether a program has
	// ended; each further one in the same visit comes after twice as long.
	execInterval = 10 * time.Millisecond
	// execVisit is how long a visit lasts. An agent without a client rests 100 ms at each
	// turn of its loop (qemu-ga 7.2), and takes one small piece of a program's output per
	// turn: what is written meanwhile comes through at 40 KB a second.
	execVisit = 300 * time.Millisecond
	// execGap and execLongest are the shortest and the longest time between two visits,
	// in which others have their turns.
	execGap     = 20 * time.Millisecond
	execLongest = 500 * time.Millisecond
)

// Exec runs a program in a guest by its agent and waits for its end, in visits so short
// that others have their turns. The agent hands out what a program wrote only once it
// has ended, and everything that holds its outputs open with it.
//
// When ctx ends first, the program is ended in the guest as well as that is possible;
// the error is a *GivenUpError then, and the result has what it wrote if it has ended.
func (d *Driver) Exec(ctx context.Context, name string, req ExecRequest) (ExecResult, error) {
	const op = "run a command in"
	if len(req.Input) > MaxExecInput {
		return ExecResult{}, fail(op, name, fmt.Errorf("the input is longer than %d bytes, which is what the guest agent takes at once", MaxExecInput),
			"copy it into the guest with: maqet cp FILE "+name+":PATH")
	}
	if err := d.agentThere(ctx, name); err != nil {
		return ExecResult{}, asOp(op, name, err)
	}
	x := &execution{driver: d, name: name}
	err := x.begin(ctx, req)
	for wait := execGap; err == nil && x.status == nil; wait = min(2*wait, execLongest) {
		if err = pause(ctx, wait); err == nil {
			err = x.look(ctx)
		}
	}
	if err != nil && ctx.Err() != nil {
		return x.giveUp(ctx)
	}
	if err != nil {
		return ExecResult{PID: x.pid}, asOp(op, name, err)
	}
	return x.result(), nil
}

// execution is a program in a guest.
type execution struct {
	driver *Driver
	name   string
	// sent tells that the agent was told to run it, pid that it did.
	sent bool
	pid  int64
	// status is how it ended; nil before.
	status *qga.ExecStatus
	// mute is since when the agent does not answer.
	mute time.Time
}

// visit visits the agent. What was begun there is seen to its end whatever becomes of
// ctx: an answer that nobody reads is lost, and that of a program's end comes once.
func (x *execution) visit(ctx context.Context, fn func(ctx context.Context, c *qga.Conn) error) error {
	d := x.driver
	return d.atAgent(ctx, x.name, d.timing.Agent, func(ctx context.Context, c *qga.Conn) error {
		calm, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timing.AgentVisit)
		defer cancel()
		// It is in step, so it is there; putting megabytes of output into one answer keeps
		// it silent for a while, and that answer is not given again.
		c.Allow(d.timing.AgentVisit / 4)
		return fn(calm, c)
	})
}

// begin starts the program, and waits a moment for its end.
func (x *execution) begin(ctx context.Context, req ExecRequest) error {
	return x.visit(ctx, func(calm context.Context, c *qga.Conn) (err error) {
		x.sent = true
		x.pid, err = c.Exec(calm, qga.ExecRequest{
			Path: req.Command[0], Args: req.Command[1:], Env: req.Env, Input: req.Input, Capture: true,
		})
		if err != nil {
			return err
		}
		// It runs: an agent that falls silent now is asked again.
		if err := x.soon(ctx, calm, c, execVisit); !errors.Is(err, qga.ErrNotAnswering) {
			return err
		}
		return nil
	})
}

// soon asks until the program has ended, at most for so long.
func (x *execution) soon(ctx, calm context.Context, c *qga.Conn, most time.Duration) error {
	for wait := execInterval; ; wait *= 2 {
		s, err := c.ExecStatus(calm, x.pid)
		if _, refused := errors.AsType[*qga.Error](err); refused {
			return fmt.Errorf("the agent has forgotten process %d, as after a restart of its own, so its end is not known: %w", x.pid, err)
		}
		if err != nil {
			return err
		}
		if s.Exited {
			x.status = &s
			return nil
		}
		if most -= wait; most < 0 {
			return nil
		}
		if pause(ctx, wait) != nil {
			return nil //nolint:nilerr // the caller sees that ctx has ended
		}
	}
}

// look asks in one visit whether the program has ended. An agent that does not answer for a
// while, that another visits for long, or whose guest is paused, is asked again later:
// the program is none the worse.
func (x *execution) look(ctx context.Context) error {
	d := x.driver
	err := x.visit(ctx, func(calm context.Context, c *qga.Conn) error { return x.soon(ctx, calm, c, execVisit) })
	var there error
	switch {
	case errors.Is(err, qga.ErrNotAnswering):
		there = d.agentThere(ctx, x.name)
	case !errors.Is(err, filelock.ErrHeld):
		x.mute = time.Time{}
		return err
	}
	switch {
	case errors.Is(there, ErrNotResponsive):
		x.mute = time.Time{}
		return nil
	case there != nil:
		return there
	case x.mute.IsZero():
		x.mute = d.now()
		return nil
	case d.now().Sub(x.mute) > d.timing.AgentVisit:
		return err
	default:
		return nil
	}
}

// giveUp ends the program in the guest, where that is possible.
func (x *execution) giveUp(ctx context.Context) (ExecResult, error) {
	given := &GivenUpError{PID: x.pid, Err: context.Cause(ctx)}
	if x.pid == 0 {
		if !x.sent {
			return ExecResult{}, ctx.Err()
		}
		return ExecResult{}, given
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*x.driver.timing.Agent)
	defer cancel()
	for _, signal := range []string{"TERM", "KILL"} {
		if x.status == nil {
			// A guest without a shell leaves the program running, which is said.
			_ = x.visit(ctx, func(calm context.Context, c *qga.Conn) error { return x.kill(ctx, calm, c, signal) })
		}
	}
	given.Ended = x.status != nil
	return x.result(), given
}

// kill signals the program in the guest and waits a moment for its end.
func (x *execution) kill(ctx, calm context.Context, c *qga.Conn, signal string) error {
	if err := x.soon(ctx, calm, c, 0); err != nil || x.status != nil {
		return err
	}
	// The shell has the command built in; a program of that name is not everywhere.
	_, err := c.Exec(calm, qga.ExecRequest{
		Path: "/bin/sh", Args: []string{"-c", `kill -s "$1" "$2"`, "sh", signal, strconv.FormatInt(x.pid, 10)},
	})
	if err != nil {
		return err
	}
	return x.soon(ctx, calm, c, x.driver.timing.Agent/2)
}

// result is how the program ended.
func (x *execution) result() ExecResult {
	r := ExecResult{PID: x.pid}
	if s := x.status; s != nil {
		if s.ExitCode != nil {
			r.ExitCode = *s.ExitCode
		}
		if s.Signal != nil {
			r.Signal = *s.Signal
		}
		r.Out, r.Err, r.Truncated = s.Out, s.Err, s.OutTruncated || s.ErrTruncated
	}
	return r
}
