package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/qemu"
	"github.com/maqet/maqet/internal/filelock"
)

const (
	// consoleTail is how much of the log a person is shown first.
	consoleTail = 10
	// consoleWindow is how much of what a guest writes is looked at as one for --expect.
	consoleWindow = 64 << 10
	// consoleTimeout is how long --expect waits without --timeout.
	consoleTimeout = time.Minute
	// ctrlC leaves a console that only looks, where it cannot be meant for the guest.
	ctrlC = 0x03
)

// consoleFlags are the flags of console.
type consoleFlags struct {
	readOnly, take bool
	tail           int
	tailSet        bool
	escape         string
	send           string
	sendSet        bool
	expect         string
	timeout        time.Duration
	timeoutSet     bool
}

// scripted tells that no person sits there.
func (f consoleFlags) scripted() bool { return f.sendSet || f.expect != "" }

func newConsole(a *app) *cobra.Command {
	flags := consoleFlags{}
	cmd := &cobra.Command{
		Use:   "console VM",
		Short: "Sit at a guest's serial line",
		Long: `Sit at a guest's serial line: what the guest writes is shown, and what is typed goes to
the guest, Ctrl-C included. Ctrl-] leaves, or the key of --escape. The last lines of the
log come first. The machine needs serial: {log: true}; with serial: {} alone there is no
log, and so no past and no onlookers.

One may type at a time. Whoever comes while another has the line only looks on, as
with --read-only; --take asks the other one to leave. Onlookers follow the log, and go on
when the machine is started again.

In a script --send types a text and Enter, and --expect waits for a regular expression
in what the guest writes from then on (with --tail also in what it wrote before); when
--timeout runs out before, the exit code is 2. An expression that fits the text itself is
met by its echo. From a pipe standard input is typed as it is; after its end the console
goes on showing until it is interrupted, or --expect is met.`,
		Example: `  maqet console web
  maqet console web --read-only --tail 100
  maqet console web --take --escape ctrl-a
  maqet console web --tail -1 --expect 'login:|ready' --timeout 30s`,
		Args:              exactArgs("a machine"),
		ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags.tailSet, flags.sendSet = cmd.Flags().Changed("tail"), cmd.Flags().Changed("send")
			flags.timeoutSet = cmd.Flags().Changed("timeout")
			return runConsole(cmd.Context(), a, args[0], flags)
		},
	}
	cmd.Flags().BoolVar(&flags.readOnly, "read-only", false, "only look on, and leave the line to others")
	cmd.Flags().BoolVar(&flags.take, "take", false, "ask who has the line to leave")
	cmd.Flags().IntVar(&flags.tail, "tail", consoleTail, "show the last `N` lines of the log first (-1: all; 0 in scripts if not given)")
	cmd.Flags().StringVar(&flags.escape, "escape", "ctrl-]", "the `KEY` that leaves: ctrl- and a letter or one of ] [ \\ ^ _, or none")
	cmd.Flags().StringVar(&flags.send, "send", "", "type this `TEXT` and Enter")
	cmd.Flags().StringVar(&flags.expect, "expect", "", "end when what the guest writes matches this `REGEX`")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", consoleTimeout, "how long to wait for --expect")
	mustComplete(cmd, "escape", []string{"ctrl-]", "ctrl-a", "none"})
	return cmd
}

// parseEscape is the byte that a key sends; 0 for none.
func parseEscape(key string) (byte, error) {
	name := strings.ToLower(key)
	if name == "none" {
		return 0, nil
	}
	for _, prefix := range []string{"ctrl-", "^"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && len(rest) == 1 && strings.Contains("abcdefghijklmnopqrstuvwxyz[\\]^_", rest) {
			return rest[0] & 0x1f, nil
		}
	}
	return 0, usagef("--escape %s: must be ctrl- and a letter or one of ] [ \\ ^ _, or none", key)
}

func (f consoleFlags) check() error {
	switch {
	case f.readOnly && (f.take || f.sendSet):
		return usagef("with --read-only nobody types: leave out --take and --send")
	case f.tail < -1:
		return usagef("--tail %d: must not be negative", f.tail)
	case f.timeout <= 0:
		return usagef("--timeout %s: must be positive", f.timeout)
	case f.timeoutSet && f.expect == "":
		return usagef("--timeout is how long --expect waits; give it, too")
	default:
		return nil
	}
}

// expectation waits for a regular expression in a stream.
type expectation struct {
	to     io.Writer
	re     *regexp.Regexp
	window []byte
	met    func()
}

// Write passes on what the guest writes, and looks at it.
func (e *expectation) Write(b []byte) (int, error) {
	n, err := e.to.Write(b)
	if e.window = append(e.window, b[:n]...); len(e.window) > consoleWindow {
		e.window = bytes.Clone(e.window[len(e.window)-consoleWindow:])
	}
	if e.re.Match(e.window) {
		e.met()
	}
	return n, err
}

var (
	errExpected   = errors.New("what was expected has come")
	errUnexpected = errors.New("what was expected has not come in time")
	errLeft       = errors.New("the escape key was pressed")
)

func runConsole(ctx context.Context, a *app, machine string, flags consoleFlags) error {
	name, err := machineName(machine)
	if err != nil {
		return err
	}
	if err := flags.check(); err != nil {
		return err
	}
	escape, err := parseEscape(flags.escape)
	if err != nil {
		return err
	}
	r, err := a.rooms()
	if err != nil {
		return err
	}
	if err := mustKnow(ctx, a, []string{name}, "console"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := a.env.out
	if flags.expect != "" {
		re, err := regexp.Compile(flags.expect)
		if err != nil {
			return usagef("--expect: %w", err)
		}
		out = &expectation{to: out, re: re, met: func() { cancel(errExpected) }}
		timer := time.AfterFunc(flags.timeout, func() { cancel(errUnexpected) })
		defer timer.Stop()
	}
	request := qemu.ConsoleRequest{ReadOnly: flags.readOnly, Take: flags.take, Tail: flags.tail, Out: out}
	if flags.scripted() && !flags.tailSet {
		request.Tail = 0
	}
	console, looks, err := sitDown(ctx, a, r.driver, name, request, flags)
	if err != nil {
		return err
	}
	err = a.atConsole(ctx, cancel, console, sitting{name: name, escape: escape, looks: looks, flags: flags})
	return consoleOutcome(a, name, flags, err)
}

// sitDown takes a seat; where somebody else has the line, and no script depends on it, one
// among the onlookers.
func sitDown(ctx context.Context, a *app, d *qemu.Driver, name string, request qemu.ConsoleRequest, flags consoleFlags) (c *qemu.Console, looks bool, err error) {
	c, err = d.Console(ctx, name, request)
	held, ok := errors.AsType[*filelock.HeldError](err)
	switch {
	case !ok || request.Take:
		return c, request.ReadOnly, err
	case flags.sendSet, !a.env.inTTY && !flags.scripted():
		return nil, false, fmt.Errorf("vm/%s: pid %d (%s) has the serial line; --take asks it to leave, --read-only looks on", name, held.PID, held.Command)
	case !flags.scripted():
		fmt.Fprintf(a.env.err, "Pid %d (%s) has the line, so you only look on; --take asks it to leave.\n", held.PID, held.Command)
	}
	request.ReadOnly = true
	c, err = d.Console(ctx, name, request)
	return c, true, err
}

// sitting is how somebody sits at a console.
type sitting struct {
	name   string
	escape byte
	looks  bool
	flags  consoleFlags
}

// atConsole sits at a console until it ends. The terminal is as it was before, whatever
// ends it.
func (a *app) atConsole(ctx context.Context, cancel context.CancelCauseFunc, console *qemu.Console, s sitting) error {
	restore := func() {}
	if a.env.inTTY && a.env.raw != nil && !s.flags.scripted() {
		leaves := "Ctrl-C leaves"
		if s.escape != 0 {
			leaves = s.flags.escape + " leaves"
		}
		if s.escape != 0 || s.looks {
			fmt.Fprintf(a.env.err, "At the serial line of vm/%s; %s.\n", s.name, leaves)
		}
		back, err := a.env.raw()
		if err != nil {
			cancel(err)
			return console.Run(ctx)
		}
		restore = back
	}
	defer restore()
	go func() {
		defer restoreOnPanic(restore)
		if err := typeInto(ctx, console, a.env.in, s, a.env.inTTY); err != nil {
			cancel(err)
		}
	}()
	err := console.Run(ctx)
	restore()
	return err
}

// restoreOnPanic gives the terminal back before a panic of this goroutine ends maqet.
func restoreOnPanic(restore func()) {
	if p := recover(); p != nil {
		restore()
		panic(p)
	}
}

// typeInto gives the console what is to be sent, then what is typed. Nil is the end of a
// pipe.
func typeInto(ctx context.Context, console *qemu.Console, in io.Reader, s sitting, tty bool) error {
	if s.flags.sendSet {
		if _, err := io.WriteString(console, s.flags.send+"\r"); err != nil {
			return err
		}
	}
	switch {
	case s.flags.sendSet && s.flags.expect == "":
		if err := console.Flush(ctx); err != nil {
			return err
		}
		return errExpected // there is nothing more to do
	case s.flags.scripted():
		return nil
	case !tty:
		if s.looks {
			return nil
		}
		_, err := io.Copy(onlyWriter{console}, in)
		return err
	}
	return typeKeys(console, in, s)
}

// typeKeys gives the console what is typed until the escape key.
func typeKeys(console io.Writer, in io.Reader, s sitting) error {
	buf := make([]byte, 4<<10)
	for {
		n, err := in.Read(buf)
		typed := buf[:n]
		left := -1
		if s.escape != 0 {
			left = bytes.IndexByte(typed, s.escape)
		}
		if left < 0 && s.looks {
			left = bytes.IndexByte(typed, ctrlC)
		}
		if left >= 0 {
			typed = typed[:left]
		}
		if _, err := console.Write(typed); err != nil {
			return err
		}
		switch {
		case left >= 0:
			return errLeft
		case errors.Is(err, io.EOF):
			return errLeft // the terminal is gone
		case err != nil:
			return fmt.Errorf("read the terminal: %w", err)
		}
	}
}

// onlyWriter hides all but Write.
type onlyWriter struct{ io.Writer }

// consoleOutcome tells how a console ended.
func consoleOutcome(a *app, name string, flags consoleFlags, err error) error {
	if a.env.inTTY && !flags.scripted() {
		fmt.Fprintln(a.env.err) // the guest's last line may not be at its end
	}
	switch {
	case errors.Is(err, errExpected), errors.Is(err, errLeft):
		return nil
	case errors.Is(err, errUnexpected):
		return &outcomeError{exitPending, fmt.Sprintf("vm/%s: nothing that the guest wrote within %s matches %s; --timeout gives it longer", name, flags.timeout, flags.expect)}
	case errors.Is(err, qemu.ErrConsoleEnded) && flags.expect == "":
		fmt.Fprintf(a.env.err, "vm/%s has ended\n", name)
		return nil
	case errors.Is(err, context.Canceled):
		return &outcomeError{code: exitInterrupted}
	default:
		return fmt.Errorf("vm/%s: %w", name, err)
	}
}
