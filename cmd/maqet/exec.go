package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/qemu"
	"github.com/maqet/maqet/driver/qga"
)

// The exit codes that exec keeps for itself, as timeout, env and their like do; all
// others are those of the command in the guest.
const (
	exitExecTimeout = 124 // --timeout ran out
	exitExecFailed  = 125 // maqet could not run it, or does not know how it ended
	exitExecRefused = 126 // the guest's agent could not run it
	exitExecSignal  = 128 // plus the number of the signal that ended it
	exitExecMost    = 255 // the highest that there is
)

// execError is a command in a guest that did not end by itself, as far as is known.
type execError struct {
	code int
	err  error
}

func (e *execError) Error() string { return e.err.Error() }
func (e *execError) Unwrap() error { return e.err }

// execFlags are the flags of exec.
type execFlags struct {
	stdin   bool
	timeout time.Duration
	env     []string
}

func newExec(a *app) *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use:   "exec VM -- COMMAND [ARG...]",
		Short: "Run a command in a guest",
		Long: `Run a command in a guest by the guest's agent, as the agent's user, which is root
as a rule. No shell is between: for pipes and variables run one, as in
sh -c 'COMMAND'. The machine needs guestAgent: {}, and its guest qemu-guest-agent.

The agent hands out what the command wrote when it has ended, so nothing is shown
before; it keeps 16 MiB of each stream, and a command that writes more fails here.
A command that leaves something running in the background ends, for the agent, when
that has closed its outputs too. With -i all of standard input is read first, up to
16 MiB, and given to the command; without it the command reads nothing.

With --env the command has those variables, a common PATH, and no others.

Ctrl-C, and --timeout, end the command in the guest: by SIGTERM, then by SIGKILL.
Where the guest has no /bin/sh it runs on, and its number there is told.

The exit code is the command's own, or 128 plus the number of the signal that ended
it. Of one over 255, as in Windows, the last 8 bits count, and 255 where those are 0.
maqet's own are
  124  --timeout ran out
  125  it could not be run, or its end is not known; the reason is on standard error
  126  the agent could not run it, as when there is no such program
  130  interrupted`,
		Example: `  maqet exec web -- uname -a
  maqet exec web --timeout 30s -- sh -c 'systemctl is-active nginx || journalctl -u nginx'
  maqet exec -i web -- tee /etc/motd <motd
  maqet exec web -- tar -C /etc -c ssh | tar x`,
		Args: func(cmd *cobra.Command, args []string) error {
			return ownFailure(checkExecArgs(cmd, args))
		},
		ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ownFailure(runExec(cmd.Context(), a, args[0], args[1:], flags))
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return ownFailure(&usageError{err}) })
	cmd.Flags().BoolVarP(&flags.stdin, "stdin", "i", false, "give the command what is read from standard input")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", 0, "end the command when it takes longer (0: no limit)")
	cmd.Flags().StringArrayVar(&flags.env, "env", nil, "variable as `NAME=VALUE`; may be given again")
	return cmd
}

func checkExecArgs(cmd *cobra.Command, args []string) error {
	switch dash := cmd.ArgsLenAtDash(); {
	case len(args) == 0 || dash == 0:
		return usagef("%s needs a machine", cmd.CommandPath())
	case len(args) == 1:
		return usagef("%s needs a command: %s %s -- COMMAND", cmd.CommandPath(), cmd.CommandPath(), args[0])
	case dash != 1:
		return usagef("put -- before the command, so that its flags are its own: %s %s -- %s", cmd.CommandPath(), args[0], strings.Join(args[1:], " "))
	case args[1] == "":
		return usagef("the command is empty")
	default:
		return nil
	}
}

// ownFailure gives an error of maqet's own a code that is no command's.
func ownFailure(err error) error {
	var known *execError
	var refused *qga.Error
	switch {
	case err == nil, errors.As(err, &known), isOutcome(err):
		return err
	case errors.As(err, &refused) && refused.Command == "guest-exec":
		return &execError{exitExecRefused, err}
	default:
		return &execError{exitExecFailed, err}
	}
}

// agentPath is where a command is looked for whose environment is given.
const agentPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// execEnv is the environment of a command.
func execEnv(given []string) ([]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	env, hasPath := slices.Clone(given), false
	for _, pair := range given {
		name, _, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usagef("--env %s: must be NAME=VALUE", pair)
		}
		hasPath = hasPath || name == "PATH"
	}
	if !hasPath {
		env = append(env, agentPath)
	}
	return env, nil
}

// readInput reads all that a command is given, and one byte more than it may be, which
// tells that it is too long. Somebody who types it may end that by Ctrl-C.
func readInput(ctx context.Context, in io.Reader) ([]byte, error) {
	type read struct {
		all []byte
		err error
	}
	done := make(chan read, 1)
	go func() {
		all, err := io.ReadAll(io.LimitReader(in, qemu.MaxExecInput+1))
		done <- read{all, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("read standard input: %w", r.err)
		}
		return r.all, nil
	}
}

func runExec(ctx context.Context, a *app, machine string, command []string, flags execFlags) error {
	name, err := machineName(machine)
	if err != nil {
		return err
	}
	if flags.timeout < 0 {
		return usagef("--timeout %s: must not be negative", flags.timeout)
	}
	request := qemu.ExecRequest{Command: command}
	if request.Env, err = execEnv(flags.env); err != nil {
		return err
	}
	r, err := a.rooms()
	if err != nil {
		return err
	}
	if err := mustKnow(ctx, a, []string{name}, "exec"); err != nil {
		return err
	}
	if flags.stdin {
		if request.Input, err = readInput(ctx, a.env.in); err != nil {
			return err
		}
	}
	running := ctx
	if flags.timeout > 0 {
		var cancel context.CancelFunc
		running, cancel = context.WithTimeout(ctx, flags.timeout)
		defer cancel()
	}
	stop := showExec(a, name, command[0])
	result, err := r.driver.Exec(running, name, request)
	stop()
	return execOutcome(a.env, name, result, err)
}

// showExec tells a person what is waited for. In a pipe nothing is told, since standard
// error is the command's.
func showExec(a *app, name, command string) (stop func()) {
	if !a.env.errTTY {
		return func() {}
	}
	p := newProgress(a)
	p.begin("vm/"+name, "waiting for the end of "+command)
	return p.stop
}

// execOutcome shows what a command wrote, and tells how it ended.
func execOutcome(env environment, name string, result qemu.ExecResult, err error) error {
	_, outErr := env.out.Write(result.Out)
	_, errErr := env.err.Write(result.Err)
	var given *qemu.GivenUpError
	switch {
	case errors.As(err, &given) && errors.Is(err, context.DeadlineExceeded):
		return &execError{exitExecTimeout, fmt.Errorf("exec vm/%s: %w", name, err)}
	case err != nil:
		return fmt.Errorf("exec vm/%s: %w", name, err)
	case outErr != nil || errErr != nil:
		return fmt.Errorf("exec vm/%s: write what the command wrote: %w", name, errors.Join(outErr, errErr))
	case result.Truncated:
		return fmt.Errorf("exec vm/%s: the command wrote more than the 16 MiB that the guest agent keeps, and the rest is lost; write into a file in the guest and fetch it with: maqet cp", name)
	case result.Signal > 0 && exitExecSignal+result.Signal <= exitExecMost:
		return &outcomeError{code: exitExecSignal + result.Signal}
	case result.Signal != 0:
		return &outcomeError{code: exitExecMost}
	case result.ExitCode&exitExecMost != 0:
		return &outcomeError{code: result.ExitCode & exitExecMost}
	case result.ExitCode != 0:
		// What does not fit is cut off, and must not look like success.
		return &outcomeError{code: exitExecMost}
	default:
		return nil
	}
}
