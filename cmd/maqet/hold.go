package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

func newHold(a *app) *cobra.Command {
	var hold holdFlags
	cmd := &cobra.Command{
		Use: "hold VM...", Short: "Leave machines alone, whatever the manifests say",
		Long: `Leave machines alone: until the hold ends, nothing is started, stopped or changed,
whatever the manifests say. "maqet apply" then ends with code 2. A hold ends by
"maqet release", when its time is over, or when the machine's spec changes.`,
		Example: "  maqet hold web --why 'disk recovery' --for 4h",
		Args:    someMachines, ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			until, err := hold.until(time.Now())
			if err != nil {
				return err
			}
			return onMachines(cmd.Context(), a, args, func(ctx context.Context, e *reconcile.Engine, _ *progress, name string) (reconcile.Result, error) {
				return e.Hold(ctx, name, state.Hold{Why: hold.why, Until: until}, reconcile.Options{})
			})
		},
	}
	hold.add(cmd)
	return cmd
}

func newRelease(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "release VM...", Short: "End holds and make machines as their manifests say",
		Example: "  maqet release web",
		Args:    someMachines, ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onMachines(cmd.Context(), a, args, func(ctx context.Context, e *reconcile.Engine, p *progress, name string) (reconcile.Result, error) {
				result, err := e.Release(ctx, name, reconcile.Options{})
				if err == nil && result.Err == nil {
					p.note(name, "released")
				}
				return result, err
			})
		},
	}
}

// onMachines calls do for each named machine and prints what came of it.
func onMachines(ctx context.Context, a *app, args []string, do func(context.Context, *reconcile.Engine, *progress, string) (reconcile.Result, error)) error {
	names, err := machineNames(args)
	if err != nil {
		return err
	}
	p := newProgress(a)
	engine, err := a.engine(p.report)
	if err != nil {
		return err
	}
	return act(ctx, a, names, engine, p, func(ctx context.Context, e *reconcile.Engine, name string) (reconcile.Result, error) {
		return do(ctx, e, p, name)
	})
}
