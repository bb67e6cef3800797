package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/reconcile"
)

// jobLine is one piece of long work on a machine.
type jobLine struct {
	Machine string `json:"machine"`
	// ID, Type and Status are QEMU's; of work that makes QEMU deaf, what was asked for,
	// and of work outside of QEMU its kind and what it makes.
	ID     string `json:"id"`
	Type   string `json:"type"`
	Status string `json:"status"`
	// For is the snapshot that it is for; empty for work that maqet did not begin.
	For string `json:"for,omitempty"`
	// Percent is how far it is; -1 when that is not known.
	Percent int    `json:"percent"`
	Error   string `json:"error,omitempty"`
	// Since, Until and Who are known of work that maqet began.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	Who   string    `json:"who,omitempty"`
}

func newJobs(a *app) *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "jobs [VM...]",
		Short: "List long work that goes on",
		Long: `List the jobs of every running QEMU, whoever began them: snapshots being saved and
loaded, with who asked for them and until when they may last, and others, such as
block jobs. While QEMU saves or loads memory it answers nobody; then what was asked
for is told. Snapshots that are cloned and exported, which QEMU has no part in, are
listed with what they are copied to.`,
		Example:           "  maqet jobs",
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
			return listJobs(cmd.Context(), a, names, f)
		},
	}
	out.add(cmd, "json", "yaml")
	return cmd
}

func listJobs(ctx context.Context, a *app, names []string, f format) error {
	views, err := look(ctx, a, names, driver.DepthGuest)
	if err != nil {
		return err
	}
	lines := []jobLine{}
	for _, v := range views {
		lines = append(lines, jobsOf(v)...)
	}
	works, err := worksOn(ctx, a, names)
	if err != nil {
		return err
	}
	lines = append(lines, works...)
	if f.structured() {
		return f.write(a.env.out, lines)
	}
	if len(lines) == 0 {
		fmt.Fprintln(a.env.err, "No jobs.")
		return nil
	}
	rows := make([][]string, 0, len(lines))
	for _, l := range lines {
		rows = append(rows, []string{
			l.Machine, l.ID, l.Type, l.Status, percentCell(l.Percent), timeCell(l.Since), timeCell(l.Until), orDash(l.Who), orDash(l.For), l.Error,
		})
	}
	printTable(a.env.out, []string{"MACHINE", "JOB", "TYPE", "STATUS", "DONE", "SINCE", "UNTIL", "BY", "SNAPSHOT", "ERROR"}, rows)
	return nil
}

// jobsOf are the jobs that a look at a machine shows.
func jobsOf(v reconcile.View) []jobLine {
	name := v.Machine.Object.Metadata.Name
	intent := v.Observed.Intent
	if intent != nil && intent.Snapshot == nil {
		intent = nil
	}
	var lines []jobLine
	asked := func(l *jobLine) {
		l.For, l.Since, l.Until, l.Who = intent.Snapshot.Tag, intent.Since, intent.Deadline, intent.Who
	}
	if g := v.Observed.Guest; g != nil {
		for _, j := range g.Jobs {
			l := jobLine{Machine: name, ID: j.ID, Type: j.Type, Status: j.Status, Percent: percent(j), Error: j.Error}
			if intent != nil && intent.Snapshot.Job == j.ID {
				asked(&l)
				intent = nil
			}
			lines = append(lines, l)
		}
	}
	if intent != nil && v.Observed.Presence == driver.Unresponsive {
		l := jobLine{Machine: name, ID: intent.Snapshot.Job, Type: "snapshot-save", Status: "running", Percent: -1}
		if intent.Kind == driver.IntentRestore {
			l.Type = "snapshot-load"
		}
		asked(&l)
		lines = append(lines, l)
	}
	return lines
}

// percent is how far a job is. One whose total is a single unit only tells whether it
// is over.
func percent(j driver.Job) int {
	if j.Total <= 1 {
		return -1
	}
	return int(100 * j.Current / j.Total)
}

func percentCell(p int) string {
	if p < 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", p)
}

// worksOn is the work on machines that goes on outside of QEMU; no names are all.
func worksOn(ctx context.Context, a *app, names []string) ([]jobLine, error) {
	engine, err := a.reader(nil)
	if err != nil {
		return nil, err
	}
	works, err := engine.Works(ctx)
	var lines []jobLine
	for _, w := range works {
		if len(names) == 0 || slices.Contains(names, w.VM) {
			lines = append(lines, jobLine{
				Machine: w.VM, ID: w.Kind + "-" + strconv.Itoa(w.PID), Type: w.Kind + " to " + w.To, Status: "running", Percent: w.Percent,
				For: w.Snapshot, Since: w.Since, Who: w.Who,
			})
		}
	}
	return lines, err
}
