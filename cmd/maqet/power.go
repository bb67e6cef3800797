package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

// holdFlags say why and how long an override lasts.
type holdFlags struct {
	why   string
	lasts time.Duration
}

func (h *holdFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.why, "why", "", "`TEXT` of the reason, shown wherever the machine is shown")
	cmd.Flags().DurationVar(&h.lasts, "for", 0, "end the hold by itself after this long (0: until released)")
}

func (h *holdFlags) until(now time.Time) (time.Time, error) {
	switch {
	case h.lasts < 0:
		return time.Time{}, usagef("--for %s: must not be negative", h.lasts)
	case h.lasts == 0:
		return time.Time{}, nil
	default:
		return now.Add(h.lasts), nil
	}
}

// target is which machines a command acts on.
type target struct{ all bool }

func (t *target) names(ctx context.Context, engine *reconcile.Engine, args []string) ([]string, error) {
	switch {
	case t.all && len(args) > 0:
		return nil, usagef("--all and names together make no sense; give one of them")
	case !t.all && len(args) == 0:
		return nil, usagef("no machine named; give names, or --all")
	case !t.all:
		return machineNames(args)
	}
	views, err := engine.Views(ctx, nil, driver.DepthBrief)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, v := range views {
		names = append(names, v.Machine.Object.Metadata.Name)
	}
	return names, nil
}

// act calls do for every name in parallel, prints what came of each, and
// joins the outcome into one exit code. With one unknown name nothing is done.
func act(ctx context.Context, a *app, names []string, engine *reconcile.Engine, p *progress,
	do func(ctx context.Context, e *reconcile.Engine, name string) (reconcile.Result, error),
) error {
	if err := mustKnow(ctx, a, names, a.command); err != nil {
		return err
	}
	results := make([]reconcile.Result, len(names))
	errs := make([]error, len(names))
	p.beginAll(names)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			results[i], errs[i] = do(ctx, engine, name)
			p.end("vm/" + name)
		})
	}
	wg.Wait()
	p.stop()
	worst := error(nil)
	for i := range names {
		err := errs[i]
		if err == nil {
			printLeftovers(a.env, results[i])
			err = resultOutcome(results[i])
		} else if !isOutcome(err) {
			printResultError(a.env, names[i], err)
			err = &printedError{err}
		}
		worst = worse(ctx, worst, err)
	}
	if exitCode(ctx, worst) == exitInterrupted {
		fmt.Fprintln(a.env.err, interruptedText)
	}
	return worst
}

func isOutcome(err error) bool { return errors.As(err, new(*outcomeError)) }

// resultOutcome is the exit code of one machine's result. A hold is what these
// commands make, and a change that waits for a restart is not what they were
// asked for, so neither is pending here.
func resultOutcome(r reconcile.Result) error {
	if r.Err != nil {
		return &printedError{r.Err}
	}
	code := exitDone
	for _, problem := range r.Plan.Problems {
		if !problem.Owed() {
			return &outcomeError{code: exitFailed}
		}
		code = exitPending
	}
	if code != exitDone {
		return &outcomeError{code: code}
	}
	return nil
}

// worse keeps the error whose exit code comes first in exitCodesHelp.
func worse(ctx context.Context, a, b error) error {
	rank := func(err error) int {
		for i, code := range []int{exitInterrupted, exitInvalid, exitRefused, exitFailed, exitDegraded, exitPending} {
			if exitCode(ctx, err) == code {
				return i
			}
		}
		return exitInterrupted
	}
	if rank(b) < rank(a) {
		return b
	}
	return a
}

// powerVerb is one of start, pause and resume.
type powerVerb struct {
	use, short, long, example string
	state                     manifest.PowerState
	// resume lets run on what QEMU stopped because a disk failed.
	resume bool
}

func newStart(a *app) *cobra.Command {
	return newPowerCommand(a, powerVerb{
		use: "start VM...", short: "Start machines", state: manifest.PowerRunning,
		long: `Start machines and wait until QEMU says that they run.

When the manifest wants the machine running, a hold that kept it stopped ends.
When the manifest wants it stopped, a hold is written, which keeps it running
until it is released, its time is over, or the spec changes.`,
		example: "  maqet start web\n  maqet start web --for 2h --why 'debugging'",
	})
}

func newPause(a *app) *cobra.Command {
	return newPowerCommand(a, powerVerb{
		use: "pause VM...", short: "Pause machines", state: manifest.PowerPaused,
		long: `Stop the vCPUs of machines; memory and devices stay as they are. A hold is
written unless the manifest itself wants the machine paused.`,
		example: "  maqet pause web --for 10m",
	})
}

func newResume(a *app) *cobra.Command {
	return newPowerCommand(a, powerVerb{
		use: "resume VM...", short: "Let paused machines run on", state: manifest.PowerRunning, resume: true,
		long: `Let the vCPUs of paused machines run. A hold that kept the machine paused ends;
one is written when the manifest itself wants it paused or stopped.

A guest that QEMU stopped because its disk failed or was full (IOError) runs on only
by this command: make room or mend the storage first.`,
		example: "  maqet resume web",
	})
}

func newPowerCommand(a *app, v powerVerb) *cobra.Command {
	var hold holdFlags
	cmd := &cobra.Command{
		Use: v.use, Short: v.short, Long: v.long, Example: v.example,
		Args: someMachines, ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := powerRequest{state: v.state, hold: hold}
			return setPower(cmd.Context(), a, target{}, args, request, reconcile.Options{Start: v.state == manifest.PowerRunning, Resume: v.resume})
		},
	}
	hold.add(cmd)
	return cmd
}

func newStop(a *app) *cobra.Command {
	var (
		hold      holdFlags
		to        target
		force     bool
		untilBoot bool
		wait      bool
	)
	cmd := &cobra.Command{
		Use: "stop {VM... | --all}", Short: "Stop machines",
		Long: `Stop machines and wait until they are gone. The guest is asked to power off; when
its shutdown timeout is over QEMU is told to quit, and at last it is killed. Each
of these steps is printed. Disks stay. With --wait=false the first of these steps
is sent and nothing is waited for; the next apply, stop or watch goes on with it.

A hold is written unless the manifest itself wants the machine stopped, so
nothing starts it again until "maqet start" or "maqet release". With --until-boot
that hold lasts until the host has booted again, and whatever hold there was
before then stands as before: this is how a host that goes down ends its guests.`,
		Example: "  maqet stop web\n  maqet stop web --force     # do not ask the guest\n" +
			"  maqet stop --all\n  maqet stop --all --until-boot     # before the host goes down",
		ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if untilBoot && hold.lasts != 0 {
				return usagef("--for and --until-boot are two ends of one hold; give one of them")
			}
			request := powerRequest{state: manifest.PowerStopped, hold: hold, untilBoot: untilBoot}
			return setPower(cmd.Context(), a, to, args, request, reconcile.Options{Force: force, NoWait: !wait})
		},
	}
	hold.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "do not ask the guest; data it has not written yet is lost")
	cmd.Flags().BoolVar(&to.all, "all", false, "every machine of this state dir")
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until the machines are gone")
	cmd.Flags().BoolVar(&untilBoot, "until-boot", false, "end the hold by itself when the host has booted again")
	return cmd
}

// powerRequest is what one of these commands asks of each of its machines.
type powerRequest struct {
	state     manifest.PowerState
	hold      holdFlags
	untilBoot bool
}

func setPower(ctx context.Context, a *app, to target, args []string, ask powerRequest, opt reconcile.Options) error {
	until, err := ask.hold.until(time.Now())
	if err != nil {
		return err
	}
	p := newProgress(a)
	engine, err := a.engine(p.report)
	if err != nil {
		return err
	}
	names, err := to.names(ctx, engine, args)
	if err != nil {
		return err
	}
	request := reconcile.PowerRequest{PowerState: ask.state, Why: ask.hold.why, Until: until, UntilBoot: ask.untilBoot}
	return act(ctx, a, names, engine, p, func(ctx context.Context, e *reconcile.Engine, name string) (reconcile.Result, error) {
		result, err := e.SetPower(ctx, name, request, opt)
		// What was only sent has come to nothing yet.
		if err == nil && (!opt.NoWait || len(result.Steps) == 0) {
			p.outcome(result, powerSteps(ask.state)...)
		}
		return result, err
	})
}

// powerSteps are the steps that bring a machine to a power state.
func powerSteps(power manifest.PowerState) []reconcile.StepKind {
	switch power {
	case manifest.PowerStopped:
		return []reconcile.StepKind{reconcile.StepRecordEnd}
	case manifest.PowerPaused:
		return []reconcile.StepKind{reconcile.StepPause, reconcile.StepStart}
	case manifest.PowerRunning:
		return []reconcile.StepKind{reconcile.StepResume, reconcile.StepStart}
	default:
		return nil
	}
}

// outcome says how a machine is when this command did none of the steps that would
// have said so: nothing was to be done, or somebody else did it, such as a watch
// that saw the process end first.
func (p *progress) outcome(r reconcile.Result, last ...reconcile.StepKind) {
	if r.Err != nil || r.Gone || len(r.Plan.Problems) > 0 {
		return
	}
	for _, done := range r.Steps {
		if slices.Contains(last, done.Kind) {
			return
		}
	}
	words := "is " + string(r.Status.Phase)
	switch {
	case len(r.Steps) == 0:
		words += " already"
	case r.Status.PID != 0:
		words += fmt.Sprintf(" now, pid %d", r.Status.PID)
	default:
		words += " now"
	}
	p.note(r.Machine, words)
}

func newRestart(a *app) *cobra.Command {
	var (
		force bool
		to    target
	)
	cmd := &cobra.Command{
		Use: "restart {VM... | --all}", Short: "Stop machines and start them again",
		Long: `Stop machines gracefully and start them again. Changes that waited for a restart
take effect.`,
		Example:           "  maqet restart web",
		ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := newProgress(a)
			engine, err := a.engine(p.report)
			if err != nil {
				return err
			}
			names, err := to.names(cmd.Context(), engine, args)
			if err != nil {
				return err
			}
			opt := reconcile.Options{AllowRestart: true, Restart: true, Force: force}
			return act(cmd.Context(), a, names, engine, p, func(ctx context.Context, e *reconcile.Engine, name string) (reconcile.Result, error) {
				result, err := e.Restart(ctx, name, opt)
				if err == nil {
					p.outcome(result, reconcile.StepStart)
				}
				return result, err
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "do not ask the guest; data it has not written yet is lost")
	cmd.Flags().BoolVar(&to.all, "all", false, "every machine of this state dir")
	return cmd
}

// machineNames reads names as people write them: web or vm/web.
func machineNames(args []string) ([]string, error) {
	names := make([]string, 0, len(args))
	for _, arg := range args {
		name, err := machineName(arg)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func machineName(arg string) (string, error) {
	kind, name, hasKind := cutKind(arg)
	if hasKind && kind != manifest.KindVirtualMachine {
		return "", usagef("%s is no machine", arg)
	}
	if err := manifest.ValidMachineName(name); err != nil {
		return "", usagef("%q cannot be the name of a machine: %w", arg, err)
	}
	return name, nil
}

// announce prints one plain line about a machine.
func announce(env environment, name, format string, args ...any) {
	fmt.Fprintf(env.out, "vm/%s %s\n", name, fmt.Sprintf(format, args...))
}
