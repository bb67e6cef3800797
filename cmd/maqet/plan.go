package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

func newPlan(a *app) *cobra.Command {
	var (
		flags applyFlags
		out   outputFlag
	)
	cmd := &cobra.Command{
		Use: "plan -f PATH...", Aliases: []string{"diff"},
		Short: "Show what apply would do, and touch nothing",
		Long: `Show what apply would do with the same flags, and touch nothing: each change with
its class and reason, then the steps in order.

The classes are none, metadata, live, next-boot, restart, recreate and data-loss.
Exit code 0 means that nothing is to be done, 2 that something is.`,
		Example: "  maqet plan -f vms/\n  maqet plan -f vms/ --allow-restart -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			if err := flags.check(); err != nil {
				return err
			}
			set, err := loadForHost(cmd.Context(), a, &flags.files)
			if err != nil {
				return invalid(a, err)
			}
			proved, err := flags.absence(set.Roots)
			if err != nil {
				return err
			}
			set.Complete = set.Complete && proved
			return showPlan(cmd.Context(), a, set, flags.options(set.Roots), f)
		},
	}
	flags.add(cmd)
	out.add(cmd, "json", "yaml")
	return cmd
}

func showPlan(ctx context.Context, a *app, set *manifest.Set, opt reconcile.ApplyOptions, f format) error {
	engine, err := a.reader(nil)
	if err != nil {
		return err
	}
	report, err := engine.Plan(ctx, set, opt)
	if err != nil {
		return err
	}
	if f.structured() {
		err = f.write(a.env.out, report)
	} else {
		printPlan(a.env, report)
	}
	if err == nil && !report.Empty {
		err = &outcomeError{code: exitPending}
	}
	return err
}

func printPlan(env environment, report reconcile.PlanReport) {
	counts := map[reconcile.Class]int{}
	idle := 0
	for _, m := range report.Machines {
		if m.Empty() {
			idle++
			continue
		}
		fmt.Fprintf(env.out, "vm/%s (%s, now %s)\n", m.Machine, m.Action, m.Phase)
		for _, c := range m.Changes {
			counts[c.Class]++
			fmt.Fprintf(env.out, "  %s %s\n", marker(env, c.Class), describeChange(c))
		}
		for _, pass := range m.Passes {
			for _, s := range pass.Steps {
				fmt.Fprintf(env.out, "    then %s\n", describeStep(s))
			}
			if pass.Wait != nil {
				fmt.Fprintf(env.out, "    wait for %s\n", pass.Wait.For)
			}
		}
		if m.Held != nil {
			fmt.Fprintf(env.out, "  %s\n", describeHold(m.Machine, m.Held))
		}
		for _, p := range m.Problems {
			fmt.Fprintf(env.out, "  ! %s: %s; %s\n", p.Reason, p.Message, p.Hint)
		}
	}
	for _, o := range report.Objects {
		switch {
		case o.Object.Kind != manifest.KindVirtualMachine && o.Action != reconcile.ActionUnchanged:
			fmt.Fprintf(env.out, "%s (%s)\n", o.Object, o.Action)
		case o.Action == reconcile.ActionPruned:
			fmt.Fprintf(env.out, "%s is in no manifest any more and would be deleted\n", o.Object)
		}
	}
	if report.Empty {
		fmt.Fprintf(env.out, "%s: nothing to do\n", describeCount(len(report.Machines), "machine"))
		return
	}
	fmt.Fprintf(env.out, "%s: %d with nothing to do%s\n", describeCount(len(report.Machines), "machine"), idle, describeCounts(counts))
}

// describeCounts is "; changes: 2 live, 1 restart", or nothing without changes.
func describeCounts(counts map[reconcile.Class]int) string {
	var parts []string
	for _, class := range allClasses() {
		if n := counts[class]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, class))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "; changes: " + strings.Join(parts, ", ")
}

func allClasses() []reconcile.Class {
	return []reconcile.Class{
		reconcile.ClassNone, reconcile.ClassMetadata, reconcile.ClassLive, reconcile.ClassNextBoot,
		reconcile.ClassRestart, reconcile.ClassRecreate, reconcile.ClassDataLoss,
	}
}

// marker is one sign per line: + - ~ read at a glance, coloured by price.
func marker(env environment, class reconcile.Class) string {
	sign := "~"
	style := styleGood
	switch class {
	case reconcile.ClassRestart, reconcile.ClassNextBoot:
		style = styleWarn
	case reconcile.ClassRecreate, reconcile.ClassDataLoss:
		sign, style = "!", styleBad
	case reconcile.ClassNone, reconcile.ClassMetadata, reconcile.ClassLive:
	}
	if !env.color(env.outTTY) {
		return sign
	}
	return style.Sprint(sign)
}

// describeChange is "spec.memory.size 2Gi -> 4Gi, restart (why)".
func describeChange(c reconcile.Change) string {
	text := c.Path
	switch {
	case c.From != "" && c.To != "":
		text += fmt.Sprintf(" %s -> %s", c.From, c.To)
	case c.To != "":
		text += " " + c.To
	case c.From != "":
		text += fmt.Sprintf(" %s removed", c.From)
	}
	text += ", " + string(c.Class)
	if c.Drift {
		text += ", drift"
	}
	if c.Why != "" {
		text += " (" + c.Why + ")"
	}
	return text
}

func describeStep(s reconcile.Step) string {
	text := string(s.Kind)
	if s.Disk != "" {
		text += " " + s.Disk
	}
	if s.Part != nil {
		text += " " + s.Part.Noun()
	}
	if s.Snapshot != "" {
		text += " " + s.Snapshot
	}
	if s.Why != "" {
		text += " (" + s.Why + ")"
	}
	return text
}

// describeHold says who overrides what, and how that is ended.
func describeHold(machine string, h *state.Hold) string {
	return holdText(h) + "; end it with: maqet release " + machine
}

// holdText says who overrides what, since when, until when, and why.
func holdText(h *state.Hold) string {
	text := "held"
	if h.PowerState != "" {
		text += " " + string(h.PowerState)
	}
	text += fmt.Sprintf(" by %s since %s", h.Who, h.Since.Local().Format(time.DateTime))
	if !h.Until.IsZero() {
		text += " until " + h.Until.Local().Format(time.DateTime)
	}
	if h.Boot != "" {
		text += " until the host boots again"
	}
	if h.Why != "" {
		text += fmt.Sprintf(" (%s)", h.Why)
	}
	return text
}
