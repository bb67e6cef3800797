package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

func newDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "describe VM...",
		Short: "Tell everything about machines",
		Long: `Tell everything about machines: what the running QEMU says, conditions, how the
last process ended, holds, snapshots, what is pending, what apply would do next, and
the last events.`,
		Example: "  maqet describe web",
		Args:    someMachines, ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := machineNames(args)
			if err != nil {
				return err
			}
			views, err := look(cmd.Context(), a, names, driver.DepthFull)
			if err != nil {
				return err
			}
			for i, v := range views {
				if i > 0 {
					fmt.Fprintln(a.env.out)
				}
				describeMachine(a.env, v)
				if err := describeEvents(cmd.Context(), a.env, a.built.journal, v.Machine.Object.Metadata.Name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// fields writes "Name:  value" lines that line up.
type fields struct {
	out    io.Writer
	indent string
}

func (f fields) add(name, value string) {
	if value != "" {
		fmt.Fprintf(f.out, "%s%-14s %s\n", f.indent, name+":", value)
	}
}

func describeMachine(env environment, v reconcile.View) {
	m, s := v.Machine, v.Status
	top := fields{out: env.out}
	top.add("Name", m.Object.Metadata.Name)
	top.add("Labels", joinMap(m.Object.Metadata.Labels))
	top.add("Annotations", joinMap(m.Object.Metadata.Annotations))
	top.add("Owner", m.Owner)
	top.add("Source", m.Source)
	top.add("Generation", strconv.FormatInt(m.Generation, 10))
	top.add("UID", s.UID)
	phase := colorPhase(env, s.Phase)
	if s.Reason != "" {
		phase += " (" + s.Reason + ")"
	}
	top.add("Phase", phase)
	top.add("Wanted", string(m.Object.Spec.PowerState))
	if s.PID != 0 {
		top.add("Process", fmt.Sprintf("pid %d, up %s, since %s", s.PID, shortDuration(time.Since(s.StartedAt)), timeCell(s.StartedAt)))
		top.add("Cgroup", s.Cgroup)
	}
	top.add("Restarts", strconv.Itoa(s.Restarts))
	top.add("Policy", describePolicy(m.Object.Spec.RestartPolicy, v.Watched))
	if !s.NextTry.IsZero() {
		top.add("Next try", fmt.Sprintf("%s, failures in a row: %d", timeCell(s.NextTry), s.Failures))
	}
	if s.Hold != nil {
		top.add("Hold", describeHold(m.Object.Metadata.Name, s.Hold))
	}
	if s.Deleting != nil {
		top.add("Deleting", fmt.Sprintf("since %s, asked for by %s", timeCell(s.Deleting.Since), s.Deleting.Who))
	}
	if t := s.LastTermination; t != nil {
		top.add("Last end", describeEnd(*t))
	}
	describeObserved(env.out, s.Observed)
	describeGuest(env.out, s.Guest)
	describeConditions(env.out, s.Conditions)
	describeSnapshots(env.out, s.Snapshots)
	describeNext(env, v.Plan)
}

func joinMap(m map[string]string) string {
	parts := make([]string, 0, len(m))
	for _, k := range sortedKeys(m) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ", ")
}

// exitNotSeen is how a process's end is recorded that nobody waited for.
const exitNotSeen = "not seen"

// describePolicy is the restart policy, and that it does nothing while nobody watches.
func describePolicy(p manifest.RestartPolicy, watched bool) string {
	text := string(cmp.Or(p, manifest.RestartOnFailure))
	if !watched {
		text += " (no watch runs, so nothing is started again by itself)"
	}
	return text
}

func describeEnd(t state.Termination) string {
	text := fmt.Sprintf("%s at %s", t.Cause, timeCell(t.At))
	switch t.Exit {
	case "":
	case exitNotSeen:
		text += ", exit status not seen"
	default:
		text += ", " + t.Exit
	}
	if t.LastLine != "" {
		text += ", QEMU's last words: " + t.LastLine
	}
	return text
}

func describeObserved(out io.Writer, o *reconcile.ObservedStatus) {
	if o == nil {
		return
	}
	fmt.Fprintln(out, "QEMU says:")
	f := fields{out: out, indent: "  "}
	f.add("Run state", o.RunState)
	f.add("Version", o.QEMUVersion)
	f.add("Accelerator", o.Accelerator)
	f.add("Machine type", o.MachineType)
	f.add("CPUs", strings.TrimSpace(fmt.Sprintf("%d %s", o.CPUs, o.CPUModel)))
	f.add("Memory", o.Memory.String())
	for _, d := range o.Disks {
		text := fmt.Sprintf("%s, %s, %s", d.Driver, d.Format, d.File)
		if d.ReadOnly {
			text += ", read-only"
		}
		f.add("Disk "+d.Name, text)
	}
	for _, n := range o.NICs {
		f.add("NIC "+n.Name, n.Model+", "+n.MAC)
	}
	for _, d := range o.Devices {
		f.add("Device "+d.Name, d.Driver)
	}
}

// describeGuest is what the guest's agent says of its guest.
func describeGuest(out io.Writer, g *driver.GuestInfo) {
	if g == nil {
		return
	}
	fmt.Fprintln(out, "Guest says:")
	f := fields{out: out, indent: "  "}
	f.add("Hostname", g.Hostname)
	if g.OS != nil {
		f.add("System", g.OS.Name)
		f.add("Kernel", strings.TrimSpace(g.OS.Kernel+" "+g.OS.Machine))
	}
	f.add("Agent", g.AgentVersion)
	for _, i := range g.Interfaces {
		f.add("If "+i.Name, strings.TrimPrefix(strings.Join(append([]string{i.MAC}, i.Addresses...), ", "), ", "))
	}
}

func describeConditions(out io.Writer, conditions []state.Condition) {
	if len(conditions) == 0 {
		return
	}
	fmt.Fprintln(out, "Conditions:")
	rows := make([][]string, 0, len(conditions))
	for _, c := range conditions {
		rows = append(rows, []string{"  " + c.Type, c.Status, c.Reason, timeCell(c.LastTransitionTime), c.Message})
	}
	printTable(out, []string{"  TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"}, rows)
}

func describeSnapshots(out io.Writer, snapshots []reconcile.SnapshotStatus) {
	if len(snapshots) == 0 {
		return
	}
	fmt.Fprintln(out, "Snapshots:")
	printTable(out, []string{"  NAME", "PHASE", "METHOD", "TAKEN", "CONSISTENCY", "DISKS", "NOTE"}, snapshotRows(snapshots, "  "))
}

func snapshotRows(snapshots []reconcile.SnapshotStatus, indent string) [][]string {
	rows := make([][]string, 0, len(snapshots))
	for _, s := range snapshots {
		rows = append(rows, []string{
			indent + s.Name, string(s.Phase), orDash(string(s.Method)), timeCell(s.TakenAt),
			orDash(s.Consistency), orDash(strings.Join(s.Disks, ",")), s.Message,
		})
	}
	return rows
}

// describeNext is the plan: what is owed, wrong, and done next.
func describeNext(env environment, p reconcile.Plan) {
	for _, problem := range p.Problems {
		fmt.Fprintf(env.out, "Problem:       %s: %s\n", problem.Reason, problem.Message)
		if problem.Hint != "" {
			fmt.Fprintf(env.out, "               %s\n", problem.Hint)
		}
	}
	if len(p.Changes) > 0 {
		fmt.Fprintln(env.out, "Changes:")
		for _, c := range p.Changes {
			fmt.Fprintf(env.out, "  %s %s\n", marker(env, c.Class), describeChange(c))
		}
	}
	switch {
	case len(p.Steps) > 0:
		fmt.Fprintf(env.out, "Next step:     %s, by: maqet apply\n", describeStep(p.Steps[0]))
	case p.Wait != nil:
		fmt.Fprintf(env.out, "Waiting for:   %s\n", p.Wait.For)
	default:
		fmt.Fprintln(env.out, "Next step:     none")
	}
}
