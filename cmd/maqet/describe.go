package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
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
		Use:   "describe {VM | img/IMAGE}...",
		Short: "Tell everything about machines and images",
		Long: `Tell everything about machines and images. Of machines: what the running QEMU
says, conditions, how the last process ended, holds, snapshots, what is pending, what
apply would do next, and the last events.`,
		Example: "  maqet describe web\n  maqet describe img/debian-12",
		Args:    someMachines, ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, images, err := splitImages(args)
			if err != nil {
				return err
			}
			if err := describeImages(cmd.Context(), a, images); err != nil || len(names) == 0 {
				return err
			}
			views, err := look(cmd.Context(), a, names, driver.DepthFull)
			if err != nil {
				return err
			}
			for i, v := range views {
				if i > 0 || len(images) > 0 {
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

// splitImages tells img/NAME from the names of machines.
func splitImages(args []string) (machines, images []string, err error) {
	var rest []string
	for _, arg := range args {
		if kind, name, hasKind := cutKind(arg); hasKind && kind == manifest.KindImage {
			images = append(images, name)
		} else {
			rest = append(rest, arg)
		}
	}
	if images, err = imageNames(images); err != nil {
		return nil, nil, err
	}
	machines, err = machineNames(rest)
	return machines, images, err
}

func describeImages(ctx context.Context, a *app, names []string) error {
	if len(names) == 0 {
		return nil
	}
	engine, err := a.reader(nil)
	if err != nil {
		return err
	}
	views, err := engine.Images(ctx, names)
	if err != nil {
		return err
	}
	for i, v := range views {
		if i > 0 {
			fmt.Fprintln(a.env.out)
		}
		describeImage(a.env, v)
	}
	return nil
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
	if !s.NextSnapshot.IsZero() {
		top.add("Next snapshot", timeCell(s.NextSnapshot))
	}
	describeBackup(top, s.Backup)
	if s.Hold != nil {
		top.add("Hold", describeHold(m.Object.Metadata.Name, s.Hold))
	}
	if s.Deleting != nil {
		top.add("Deleting", fmt.Sprintf("since %s, asked for by %s", timeCell(s.Deleting.Since), s.Deleting.Who))
	}
	if t := s.LastTermination; t != nil {
		top.add("Last end", describeEnd(*t))
	}
	describeDiskImages(top, v)
	top.add("Provisioned", describeProvisioning(s.Provisioning))
	describeObserved(env.out, s.Observed)
	describeGuest(env.out, s.Guest)
	describeConditions(env.out, s.Conditions)
	describeSnapshots(env.out, s.Snapshots)
	describeNext(env, v.Plan, v.Watched)
}

// describeDiskImages tells which images disks were made of.
func describeDiskImages(f fields, v reconcile.View) {
	for _, name := range slices.Sorted(maps.Keys(v.Observed.Files)) {
		if digest := v.Observed.Files[name].Image; digest != "" {
			f.add("Image", "disk "+name+" was made of "+digest)
		}
	}
}

func joinMap(m map[string]string) string {
	parts := make([]string, 0, len(m))
	for _, k := range sortedKeys(m) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ", ")
}

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
	case driver.ExitNotSeen:
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
	f.add("Firmware", o.Firmware)
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
	f.add("TPM", o.TPM)
	f.add("Watchdog", o.Watchdog)
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
			orDash(s.Consistency), orDash(strings.Join(s.Disks, ",")), snapshotNote(s),
		})
	}
	return rows
}

// describeNext is the plan: what is owed, wrong, and done next, and by whom.
func describeNext(env environment, p reconcile.Plan, watched bool) {
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
		by := "maqet apply"
		if watched {
			by = "the watch"
		}
		words := make([]string, 0, len(p.Steps))
		for _, step := range p.Steps {
			words = append(words, describeStep(step))
		}
		fmt.Fprintf(env.out, "Next step:     %s, by: %s\n", strings.Join(words, ", then "), by)
	case p.Wait != nil:
		fmt.Fprintf(env.out, "Waiting for:   %s\n", describeWait(*p.Wait))
	case slices.ContainsFunc(p.Changes, func(c reconcile.Change) bool { return c.Pending && c.Class == reconcile.ClassRestart }):
		fmt.Fprintf(env.out, "Next step:     none before a restart: maqet restart %s\n", p.Machine)
	default:
		fmt.Fprintln(env.out, "Next step:     none")
	}
}

// describeWait is what is waited for, until when, and what is done then.
func describeWait(w reconcile.Wait) string {
	text := w.For
	if !w.Until.IsZero() {
		text += ", until " + timeCell(w.Until)
	}
	if w.Then != "" {
		text += "; then " + w.Then
	}
	return text
}
