package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/reconcile"
)

func newWait(a *app) *cobra.Command {
	var (
		goalText string
		timeout  time.Duration
	)
	cmd := &cobra.Command{
		Use:   "wait VM... --for=GOAL",
		Short: "Wait until machines are as they should be",
		Long: `Wait until all named machines have reached a goal: a condition (True, unless a
status is given), a phase, or that the machine is deleted. It only looks: at the
process, the readiness probe, and what other maqets do.

It ends with code 0 when the goal is reached, 2 when the time runs out, 3 for an
unknown name (which is deleted, if that is the goal), and 4 when the goal cannot
be reached any more without somebody acting, as when the machine has failed.`,
		Example: "  maqet wait web --for=condition=Ready\n  maqet wait web --for=phase=Running --timeout 30s\n" +
			"  maqet wait web --for=condition=Held=False",
		Args: someMachines, ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := machineNames(args)
			if err != nil {
				return err
			}
			if goalText == "" {
				return usagef("%s needs --for, such as --for=condition=Ready", cmd.CommandPath())
			}
			goal, err := reconcile.ParseGoal(goalText)
			if err != nil {
				return usagef("--for=%s: %w", goalText, err)
			}
			if timeout < 0 {
				return usagef("--timeout %s: must not be negative", timeout)
			}
			return runWait(cmd.Context(), a, names, goal, timeout)
		},
	}
	cmd.Flags().StringVar(&goalText, "for", "", "`GOAL`: condition=TYPE[=STATUS], phase=PHASE or delete")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this `DURATION` (0: the wait \"ready\" of --timeouts)")
	mustRegister(cmd, "for", completeGoals)
	return cmd
}

// completeGoals completes --for.
func completeGoals(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	goals := []string{"delete"}
	for _, kind := range reconcile.ConditionTypes() {
		goals = append(goals, "condition="+kind)
	}
	for _, phase := range reconcile.Phases() {
		goals = append(goals, "phase="+string(phase))
	}
	return goals, cobra.ShellCompDirectiveNoFileComp
}

// errOver ends following once there is nothing to wait for.
var errOver = errors.New("nothing is left to wait for")

// waiter waits for machines to reach a goal.
type waiter struct {
	a    *app
	goal reconcile.Goal
	// open are the machines that have not, and how each was last seen.
	open map[string]string
	// known are those that were there once.
	known map[string]bool
}

func runWait(ctx context.Context, a *app, names []string, goal reconcile.Goal, timeout time.Duration) error {
	engine, err := a.reader(nil)
	if err != nil {
		return err
	}
	if timeout == 0 {
		timeout = a.built.timing.Ready
	}
	w := &waiter{a: a, goal: goal, open: map[string]string{}, known: map[string]bool{}}
	for _, name := range names {
		w.open[name] = "it was not seen yet"
	}
	told, stop := watchChanges(ctx, a.built)
	defer stop()
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = engine.Follow(waiting, reconcile.FollowOptions{Names: names, Depth: goal.Depth(), Changes: told}, w.saw)
	switch {
	case errors.Is(err, errOver):
		return nil
	case ctx.Err() != nil:
		fmt.Fprintf(a.env.err, "Interrupted while waiting for %s.\n", goal)
		return &outcomeError{code: exitInterrupted}
	case waiting.Err() != nil && errors.Is(err, waiting.Err()):
		return w.ranOut(timeout)
	default:
		return err
	}
}

// saw judges one look.
func (w *waiter) saw(s reconcile.Sighting) error {
	if _, waits := w.open[s.Name]; !waits {
		return nil
	}
	standing, how := w.goal.Judge(s.View)
	if s.View == nil && standing == reconcile.GoalLost && !w.known[s.Name] {
		return &reconcile.Error{
			Object: "vm/" + s.Name, Op: "wait for", Err: reconcile.ErrNotFound,
			Hint: "see maqet get for the names; apply a manifest to make one",
		}
	}
	w.known[s.Name] = true
	w.open[s.Name] = how
	switch standing {
	case reconcile.GoalMet:
		announce(w.a.env, s.Name, "%s met: %s", w.goal, how)
		delete(w.open, s.Name)
	case reconcile.GoalLost:
		fmt.Fprintf(w.a.env.err, "vm/%s %s cannot be met any more: %s; %s\n", s.Name, w.goal, how, lostHint(s))
		return &outcomeError{code: exitDegraded}
	case reconcile.GoalOpen:
	}
	if len(w.open) == 0 {
		return errOver
	}
	return nil
}

// lostHint says what somebody could do.
func lostHint(s reconcile.Sighting) string {
	if s.View == nil {
		return "apply its manifest to make it again"
	}
	return "see maqet describe " + s.Name
}

// ranOut says how each machine is that has not reached the goal.
func (w *waiter) ranOut(timeout time.Duration) error {
	for _, name := range sortedKeys(w.open) {
		fmt.Fprintf(w.a.env.err, "vm/%s %s not met after %s: %s; see maqet describe %s\n", name, w.goal, timeout, w.open[name], name)
	}
	return &outcomeError{code: exitPending}
}
