package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/state"
)

// describedEvents is how many events describe shows.
const describedEvents = 10

// eventsRequest is which events are wanted, and how.
type eventsRequest struct {
	follow bool
	since  time.Duration
	tail   int
}

// filter is the journal's filter for the request.
func (q eventsRequest) filter(names []string, now time.Time) (state.Filter, error) {
	f := state.Filter{Machines: names, Last: q.tail}
	switch {
	case q.since < 0:
		return f, usagef("--since %s: must not be negative", q.since)
	case q.tail < -1:
		return f, usagef("--tail %d: must not be negative", q.tail)
	case q.tail == 0:
		f.Last = -1
	case q.tail == -1:
		f.Last = 0
	}
	if q.since > 0 {
		f.Since = now.Add(-q.since)
	}
	return f, nil
}

func newEvents(a *app) *cobra.Command {
	var (
		request eventsRequest
		out     outputFlag
	)
	cmd := &cobra.Command{
		Use:   "events [VM...]",
		Short: "Show what happened to machines",
		Long: `Show what happened to machines, oldest first: what was applied and by whom, each
step that was confirmed or failed, holds, problems when they appeared, and how
each process ended, with QEMU's last words. The journal keeps the last megabytes.

With -f it goes on with what any maqet does from now on; -o json then prints one
object per line.`,
		Example:           "  maqet events\n  maqet events web --since 1h\n  maqet events web --tail 5 -f",
		ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			names, err := machineNames(args)
			if err != nil {
				return err
			}
			filter, err := request.filter(names, time.Now())
			if err != nil {
				return err
			}
			return runEvents(cmd.Context(), a, filter, f, request.follow)
		},
	}
	cmd.Flags().BoolVarP(&request.follow, "follow", "f", false, "go on with what happens later, until interrupted")
	cmd.Flags().DurationVar(&request.since, "since", 0, "only what happened in the last `DURATION` (0: all)")
	cmd.Flags().IntVar(&request.tail, "tail", -1, "only the last `N` events (-1: all)")
	out.add(cmd, "json")
	return cmd
}

func runEvents(ctx context.Context, a *app, filter state.Filter, f format, follow bool) error {
	r, err := a.rooms()
	if err != nil {
		return err
	}
	if err := mustHaveEvents(ctx, a, r.journal, filter.Machines); err != nil {
		return err
	}
	if !follow {
		events, err := r.journal.Read(ctx, filter)
		if err != nil {
			return err
		}
		return printEvents(a.env, events, f)
	}
	table := newColumns(a.env.out, eventHeader(), []string{"", "", state.EventWarning, state.EventGuestPowerOff})
	err = r.journal.Follow(ctx, filter, func(ev state.Event) error {
		if f.structured() {
			return writeJSONLine(a.env.out, ev)
		}
		table.add(eventRow(a.env, ev))
		return nil
	})
	if ctx.Err() != nil {
		// Interrupting is how following ends: nothing needs to be said.
		return &outcomeError{code: exitInterrupted}
	}
	return err
}

// mustHaveEvents refuses a name of which neither an event nor a machine is known.
func mustHaveEvents(ctx context.Context, a *app, journal *state.Journal, names []string) error {
	if len(names) == 0 {
		return nil
	}
	all, err := journal.Read(ctx, state.Filter{Machines: names})
	if err != nil {
		return err
	}
	unknown := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(all, func(ev state.Event) bool { return ev.Machine == name })
	})
	if len(unknown) == 0 {
		return nil
	}
	return mustKnow(ctx, a, unknown, "show the events of")
}

func printEvents(env environment, events []state.Event, f format) error {
	switch {
	case f.structured():
		return f.write(env.out, listOf(events))
	case len(events) == 0:
		fmt.Fprintln(env.err, "Nothing has happened yet, as far as the journal goes back.")
		return nil
	}
	rows := make([][]string, 0, len(events))
	for _, ev := range events {
		rows = append(rows, eventRow(env, ev))
	}
	newColumns(env.out, eventHeader()).add(rows...)
	return nil
}

func eventHeader() []string {
	return []string{"TIME", "MACHINE", "TYPE", "REASON", "BY", "MESSAGE"}
}

func eventRow(env environment, ev state.Event) []string {
	kind := ev.Type
	if ev.Type == state.EventWarning && env.color(env.outTTY) {
		kind = styleWarn.Sprint(kind)
	}
	return []string{timeCell(ev.Time), ev.Machine, kind, ev.Reason, orDash(ev.Who), ev.Message}
}

// describeEvents prints the last events of a machine.
func describeEvents(ctx context.Context, env environment, journal *state.Journal, name string) error {
	events, err := journal.Read(ctx, state.Filter{Machines: []string{name}, Last: describedEvents})
	if err != nil || len(events) == 0 {
		return err
	}
	fmt.Fprintln(env.out, "Events:")
	rows := make([][]string, 0, len(events))
	for _, ev := range events {
		row := eventRow(env, ev)
		rows = append(rows, []string{"  " + row[0], row[2], row[3], row[4], row[5]})
	}
	newColumns(env.out, []string{"  TIME", "TYPE", "REASON", "BY", "MESSAGE"}).add(rows...)
	return nil
}

// writeJSONLine writes one object on one line.
func writeJSONLine(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
