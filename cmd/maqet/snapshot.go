package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

func newSnapshot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "snapshot", Aliases: []string{"snap"},
		Short: "Take, list, restore, delete, clone and export snapshots",
		Args:  noSubcommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newSnapshotCreate(a), newSnapshotList(a), newSnapshotRestore(a), newSnapshotDelete(a), newSnapshotClone(a), newSnapshotExport(a),
	)
	return cmd
}

func newSnapshotCreate(a *app) *cobra.Command {
	var (
		method, quiesce string
		deadline        time.Duration
	)
	cmd := &cobra.Command{
		Use:   "create VM NAME",
		Short: "Take a snapshot",
		Long: `Take a snapshot inside the machine's qcow2 disks. Full, the default for a running
machine, holds its memory too and pauses it while it is written; Disk holds the
disks only and does not pause. A stopped machine has no memory, and QEMU cannot save
that of one with filesystems or a disk on nvme, so their snapshots are of method Disk.
Every disk that the guest can write must be qcow2.

For a Disk snapshot of a running machine the guest's agent freezes its file systems
meanwhile, at most as long as --timeouts frozen=... says, so that all that was written
is on the disks. --quiesce says what to do where that cannot be: IfAvailable takes it
all the same, Required does not, and Never does not ask. What came of it stands below
CONSISTENCY in maqet snapshot list.`,
		Example: "  maqet snapshot create web before-upgrade\n  maqet snapshot create web nightly --method Disk --quiesce IfAvailable",
		Args:    exactArgs("a machine", "a name"), ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, tag, err := snapshotArgs(args)
			if err != nil {
				return err
			}
			m := manifest.SnapshotMethod(method)
			if m != "" && m != manifest.SnapshotDisk && m != manifest.SnapshotFull {
				return usagef("--method %s: the methods are Disk and Full", method)
			}
			q := manifest.Quiesce(quiesce)
			if q != manifest.QuiesceRequired && q != manifest.QuiesceIfAvailable && q != manifest.QuiesceNever {
				return usagef("--quiesce %s: may be Required, IfAvailable or Never", quiesce)
			}
			if deadline < 0 {
				return usagef("--deadline %s: must not be negative", deadline)
			}
			request := reconcile.SnapshotRequest{VM: vm, Name: tag, Method: m, Quiesce: q, Deadline: deadline}
			return onMachines(cmd.Context(), a, []string{vm}, func(ctx context.Context, e *reconcile.Engine, _ *progress, _ string) (reconcile.Result, error) {
				return e.CreateSnapshot(ctx, request)
			})
		},
	}
	cmd.Flags().StringVar(&method, "method", "", "`METHOD`: Disk or Full (default: Full when running, Disk when stopped, with filesystems or with a disk on nvme)")
	cmd.Flags().StringVar(&quiesce, "quiesce", string(manifest.QuiesceIfAvailable), "freeze the file systems of the guest: Required, IfAvailable or Never (`HOW`)")
	cmd.Flags().DurationVar(&deadline, "deadline", 0, "give up after this long (default: the snapshot timeout)")
	return cmd
}

func newSnapshotList(a *app) *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "list VM",
		Short:   "List a machine's snapshots as its disks show them",
		Example: "  maqet snapshot list web",
		Args:    exactArgs("a machine"), ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			name, err := machineName(args[0])
			if err != nil {
				return err
			}
			views, err := look(cmd.Context(), a, []string{name}, driver.DepthFull)
			if err != nil {
				return err
			}
			return listSnapshots(a, views[0], f)
		},
	}
	out.add(cmd, "json", "yaml")
	return cmd
}

func listSnapshots(a *app, v reconcile.View, f format) error {
	snapshots := v.Status.Snapshots
	if snapshots == nil {
		snapshots = []reconcile.SnapshotStatus{}
	}
	switch {
	case f.structured():
		return f.write(a.env.out, snapshots)
	case len(snapshots) == 0:
		fmt.Fprintf(a.env.err, "vm/%s has no snapshots\n", v.Machine.Object.Metadata.Name)
	default:
		printSnapshots(a.env, snapshots)
	}
	return nil
}

func newSnapshotRestore(a *app) *cobra.Command {
	var stop, disksOnly, noSafety bool
	cmd := &cobra.Command{
		Use:   "restore VM NAME",
		Short: "Set a machine back to a snapshot",
		Long: `Set a machine back to a snapshot. How it is now is saved first, in a snapshot
called safety-DATE-TIME, unless --no-safety is said.

A Full snapshot brings its memory back: the guest goes on where it was then. It is
loaded into the running QEMU if that has just the devices of then, and else into one
that is started as the machine was then, also when the machine is stopped; what the
manifest says otherwise is pending afterwards. With --disks-only, and for a Disk
snapshot, the guest boots from the disks of then. They can only be set back while
the machine is stopped, which --stop permits.

A load that fails halfway ends that QEMU, since its disks may be of another time than
its memory, and the machine is started cold as it was then.`,
		Example: "  maqet snapshot restore web before-upgrade --stop",
		Args:    exactArgs("a machine", "a snapshot"), ValidArgsFunction: completeSnapshots(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, tag, err := snapshotArgs(args)
			if err != nil {
				return err
			}
			request := reconcile.RestoreRequest{VM: vm, Name: tag, Stop: stop, DisksOnly: disksOnly}
			if !noSafety {
				request.Safety = "safety-" + time.Now().UTC().Format("20060102-150405")
			}
			return onMachines(cmd.Context(), a, []string{vm}, func(ctx context.Context, e *reconcile.Engine, p *progress, _ string) (reconcile.Result, error) {
				result, err := e.RestoreSnapshot(ctx, request)
				if r := result.Restored; r != nil && err == nil {
					p.stop()
					announce(a.env, vm, "disks %s are those of snapshot %s", strings.Join(r.Disks, ", "), tag)
					if r.Note != "" {
						fmt.Fprintln(a.env.out, r.Note)
					}
				}
				return result, err
			})
		},
	}
	cmd.Flags().BoolVar(&stop, "stop", false, "stop a running machine where that is needed, and start it again")
	cmd.Flags().BoolVar(&disksOnly, "disks-only", false, "leave the memory of a Full snapshot where it is")
	cmd.Flags().BoolVar(&noSafety, "no-safety", false, "do not save how the machine is now")
	return cmd
}

func newSnapshotDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "delete VM NAME",
		Short:   "Delete a snapshot and its data",
		Example: "  maqet snapshot delete web before-upgrade",
		Args:    exactArgs("a machine", "a snapshot"), ValidArgsFunction: completeSnapshots(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, tag, err := snapshotArgs(args)
			if err != nil {
				return err
			}
			return onMachines(cmd.Context(), a, []string{vm}, func(ctx context.Context, e *reconcile.Engine, _ *progress, _ string) (reconcile.Result, error) {
				return e.DeleteSnapshot(ctx, vm, tag, reconcile.Options{})
			})
		},
	}
}

func snapshotArgs(args []string) (vm, tag string, err error) {
	if vm, err = machineName(args[0]); err != nil {
		return "", "", err
	}
	if err := manifest.ValidSnapshotName(args[1]); err != nil {
		return "", "", usagef("%q cannot be the name of a snapshot: %w", args[1], err)
	}
	return vm, args[1], nil
}
