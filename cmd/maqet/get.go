package main

import (
	"context"
	"fmt"
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

func newGet(a *app) *cobra.Command {
	var (
		out   outputFlag
		watch bool
	)
	cmd := &cobra.Command{
		Use:   "get [KIND] [NAME...]",
		Short: "Show machines, snapshots or images",
		Long: `Show machines (vm, vms), the default, snapshots (snap) or images (img). Every
machine's QEMU is asked at that moment; one that does not answer is shown as
Unresponsive and delays no other.

Where the agent in a guest answers at once, -o wide, json and yaml have the guest's
host name, addresses and system.

With -w machines are printed, and then each again when it changes, until the
command is interrupted. -o json then prints one object per line. A machine that
is deleted is printed once more with the phase Deleted.`,
		Example: `  maqet get
  maqet get web -o yaml
  maqet get snap
  maqet get img
  maqet get web -o jsonpath={.status.phase}
  maqet get -w`,
		ValidArgsFunction: completeGet(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			kind, names, err := getTargets(args)
			if err != nil {
				return err
			}
			if kind != manifest.KindVirtualMachine && watch {
				return usagef("-w shows machines; those have their snapshots below .status in -o json and -o yaml")
			}
			if kind == manifest.KindImage {
				return getImages(cmd.Context(), a, names, f)
			}
			if watch {
				return watchMachines(cmd.Context(), a, names, f)
			}
			if kind == manifest.KindSnapshot {
				return getSnapshots(cmd.Context(), a, names, f)
			}
			return getMachines(cmd.Context(), a, names, f)
		},
	}
	out.add(cmd, "wide", "json", "yaml", "name", "jsonpath=TEMPLATE")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with what changes later, until interrupted")
	return cmd
}

// getTargets reads [KIND] [NAME...], where names may carry their kind.
func getTargets(args []string) (manifest.Kind, []string, error) {
	kind := manifest.KindVirtualMachine
	if len(args) > 0 && kindOf(args[0]) != "" {
		kind, args = kindOf(args[0]), args[1:]
	} else if len(args) > 0 {
		if k, _, ok := cutKind(args[0]); ok {
			kind = k
		}
	}
	var names []string
	for _, arg := range args {
		k, name, hasKind := cutKind(arg)
		if hasKind && k == "" {
			return "", nil, usagef("%q: unknown kind; the kinds are vm, snap and img", arg)
		}
		if hasKind && k != kind {
			return "", nil, usagef("%q: ask for one kind at a time", arg)
		}
		if err := manifest.ValidName(name); err != nil {
			return "", nil, usagef("%q cannot be a name: %w", arg, err)
		}
		names = append(names, name)
	}
	return kind, names, nil
}

// machineObject is a machine as programs read it: KRM with a status.
type machineObject struct {
	APIVersion string                      `json:"apiVersion"`
	Kind       manifest.Kind               `json:"kind"`
	Metadata   objectMeta                  `json:"metadata"`
	Spec       manifest.VirtualMachineSpec `json:"spec"`
	Status     reconcile.Status            `json:"status"`
}

// objectMeta is the manifest's metadata and what maqet knows besides.
type objectMeta struct {
	manifest.Metadata
	UID               string    `json:"uid,omitempty"`
	Generation        int64     `json:"generation"`
	CreationTimestamp time.Time `json:"creationTimestamp,omitzero"`
}

// list is Kubernetes' List of any objects.
type list[T any] struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Items      []T    `json:"items"`
}

func listOf[T any](items []T) list[T] {
	if items == nil {
		items = []T{}
	}
	return list[T]{APIVersion: "v1", Kind: "List", Items: items}
}

// objectOf has every list, even if nothing is in it: programs count on it.
func objectOf(v reconcile.View) machineObject {
	m := v.Machine
	if v.Status.Snapshots == nil {
		v.Status.Snapshots = []reconcile.SnapshotStatus{}
	}
	if v.Status.Conditions == nil {
		v.Status.Conditions = []state.Condition{}
	}
	return machineObject{
		APIVersion: manifest.APIVersion, Kind: manifest.KindVirtualMachine,
		Metadata: objectMeta{Metadata: m.Object.Metadata, UID: v.Status.UID, Generation: m.Generation, CreationTimestamp: m.Created},
		Spec:     m.Object.Spec, Status: v.Status,
	}
}

func getMachines(ctx context.Context, a *app, names []string, f format) error {
	views, err := look(ctx, a, names, depthOf(f))
	if err != nil {
		return err
	}
	if f.structured() {
		objects := make([]machineObject, 0, len(views))
		for _, v := range views {
			objects = append(objects, objectOf(v))
		}
		if len(names) == 1 {
			return f.write(a.env.out, objects[0])
		}
		return f.write(a.env.out, listOf(objects))
	}
	if f.kind == "name" {
		for _, v := range views {
			fmt.Fprintln(a.env.out, "vm/"+v.Machine.Object.Metadata.Name)
		}
		return nil
	}
	if len(views) > 0 {
		printMachines(a.env, views, f.kind == "wide")
	}
	unremembered := len(names) == 0 && sayUnremembered(ctx, a)
	if len(views) == 0 && !unremembered {
		fmt.Fprintln(a.env.err, "No machines here yet. Apply some manifests: maqet apply -f vms/")
	}
	return nil
}

// look looks at the named machines, or at all. One that does not answer takes
// as long as its limit, so a person is told what is waited for.
func look(ctx context.Context, a *app, names []string, depth driver.Depth) ([]reconcile.View, error) {
	engine, err := a.reader(nil)
	if err != nil {
		return nil, err
	}
	p := newProgress(a)
	defer p.stop()
	p.begin(everything, "waiting for the answer of every QEMU")
	return engine.Views(ctx, names, depth)
}

func printMachines(env environment, views []reconcile.View, wide bool) {
	rows := make([][]string, 0, len(views))
	for _, v := range views {
		rows = append(rows, machineRow(env, v, wide))
	}
	printTable(env.out, machineHeader(wide), rows)
}

func machineHeader(wide bool) []string {
	if wide {
		return []string{"NAME", "PHASE", "READY", "CPUS", "MEMORY", "RESTARTS", "UP", "PID", "MACHINE", "ACCEL", "QEMU", "PORTS", "HOSTNAME", "ADDRESSES", "OS", "OWNER", "NOTE"}
	}
	return []string{"NAME", "PHASE", "READY", "CPUS", "MEMORY", "RESTARTS", "UP", "NOTE"}
}

func machineRow(env environment, v reconcile.View, wide bool) []string {
	spec, status := specOf(v), v.Status
	row := []string{
		v.Machine.Object.Metadata.Name, colorPhase(env, status.Phase), conditionStatus(status, "Ready"),
		cpusOf(spec, status), memoryOf(spec, status), strconv.Itoa(status.Restarts), uptime(status, time.Now()),
	}
	if wide {
		row = append(row, wideCells(v)...)
	}
	return append(row, noteOf(v))
}

// specOf is the spec that the process was started with, which may be older than
// the manifest; of a machine that does not run it is the manifest's.
func specOf(v reconcile.View) manifest.VirtualMachineSpec {
	if launched := v.Observed.Launched; launched != nil && v.Status.PID != 0 {
		return launched.Spec
	}
	return v.Machine.Object.Spec
}

func wideCells(v reconcile.View) []string {
	pid, machine, accel, version, ports := "-", "-", "-", "-", "-"
	if v.Status.PID != 0 {
		pid = strconv.Itoa(v.Status.PID)
	}
	if o := v.Status.Observed; o != nil {
		machine, accel, version = orDash(o.MachineType), orDash(o.Accelerator), orDash(o.QEMUVersion)
		if o.FreePorts != nil {
			ports = strconv.Itoa(*o.FreePorts)
		}
	}
	host, addresses, system := "-", "-", "-"
	if g := v.Status.Guest; g != nil {
		host, addresses = orDash(g.Hostname), orDash(strings.Join(g.Addresses, ","))
		if g.OS != nil {
			system = orDash(g.OS.Name)
		}
	}
	return []string{pid, machine, accel, version, ports, host, addresses, system, orDash(v.Machine.Owner)}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func colorPhase(env environment, phase reconcile.Phase) string {
	if !env.color(env.outTTY) {
		return string(phase)
	}
	switch phase {
	case reconcile.PhaseRunning:
		return styleGood.Sprint(phase)
	case reconcile.PhaseFailed, reconcile.PhaseUnresponsive, reconcile.PhaseUnknown, reconcile.PhaseCrashLoopBackOff:
		return styleBad.Sprint(phase)
	case reconcile.PhasePending, reconcile.PhaseStarting, reconcile.PhaseStopping, reconcile.PhasePaused:
		return styleWarn.Sprint(phase)
	case reconcile.PhaseStopped, reconcile.PhaseCompleted:
		return styleDim.Sprint(phase)
	default:
		return string(phase)
	}
}

func conditionStatus(s reconcile.Status, kind string) string {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return "-"
}

// cpusOf is what QEMU says when it was asked, else what the manifest says.
func cpusOf(spec manifest.VirtualMachineSpec, s reconcile.Status) string {
	switch {
	case s.Observed != nil && s.Observed.CPUs > 0:
		return strconv.Itoa(s.Observed.CPUs)
	case spec.CPU != nil && spec.CPU.Count > 0:
		return strconv.Itoa(spec.CPU.Count)
	default:
		return "-"
	}
}

func memoryOf(spec manifest.VirtualMachineSpec, s reconcile.Status) string {
	switch {
	case s.Observed != nil && s.Observed.Memory > 0:
		return s.Observed.Memory.String()
	case spec.Memory != nil:
		return spec.Memory.Size.String()
	default:
		return "-"
	}
}

func uptime(s reconcile.Status, now time.Time) string {
	if s.PID == 0 || s.StartedAt.IsZero() {
		return "-"
	}
	return shortDuration(now.Sub(s.StartedAt))
}

// shortDuration is a duration as kubectl shows ages: 42s, 5m, 3h20m, 12d.
func shortDuration(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 3*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

// noteOf says in a few words what a person should know of a machine.
func noteOf(v reconcile.View) string {
	var notes []string
	if v.Status.Reason != "" {
		notes = append(notes, v.Status.Reason)
	}
	if v.Status.Hold != nil {
		notes = append(notes, holdText(v.Status.Hold))
	}
	for _, c := range v.Status.Conditions {
		if c.Status == "True" && c.Type != "Ready" && c.Type != "Held" {
			notes = append(notes, c.Type)
		}
	}
	for _, p := range v.Plan.Problems {
		notes = append(notes, p.Reason)
	}
	return strings.Join(unique(notes), ", ")
}

func unique(list []string) []string {
	var kept []string
	for _, s := range list {
		if !slices.Contains(kept, s) {
			kept = append(kept, s)
		}
	}
	return kept
}
