package main

import (
	"context"
	"fmt"
	"slices"
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
		Short: "Take, list, restore and delete snapshots",
		Args:  noSubcommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSnapshotCreate(a), newSnapshotList(a), newSnapshotRestore(a), newSnapshotDelete(a))
	return cmd
}

func newSnapshotCreate(a *app) *cobra.Command {
	var (
		method   string
		deadline time.Duration
	)
	cmd := &cobra.Command{
		Use:   "create VM NAME",
		Short: "Take a snapshot",
		Long: `Take a snapshot inside the machine's qcow2 disks. Full, the default for a running
machine, holds its memory too and pauses it while it is written; Disk holds the
disks only and does not pause. A stopped machine has no memory, so its snapshots
are of method Disk. Every disk that the guest can write must be qcow2.`,
		Example: "  maqet snapshot create web before-upgrade\n  maqet snapshot create web nightly --method Disk",
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
			if deadline < 0 {
				return usagef("--deadline %s: must not be negative", deadline)
			}
			request := reconcile.SnapshotRequest{VM: vm, Name: tag, Method: m, Deadline: deadline}
			return onMachines(cmd.Context(), a, []string{vm}, func(ctx context.Context, e *reconcile.Engine, _ *progress, _ string) (reconcile.Result, error) {
				return e.CreateSnapshot(ctx, request)
			})
		},
	}
	cmd.Flags().StringVar(&method, "method", "", "`METHOD`: Disk or Full (default: Full when running, Disk when stopped)")
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
		printTable(a.env.out, []string{"NAME", "PHASE", "METHOD", "TAKEN", "CONSISTENCY", "DISKS", "NOTE"}, snapshotRows(snapshots, ""))
	}
	return nil
}

func newSnapshotRestore(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "restore VM NAME",
		Short: "Set the disks of a stopped machine back",
		Long: `Set the disks of a stopped machine back to a snapshot. What was written since is
lost. Memory is not restored: the machine starts cold from the disks. A running
machine is refused; stop it first.`,
		Example: "  maqet stop web && maqet snapshot restore web before-upgrade && maqet start web",
		Args:    exactArgs("a machine", "a snapshot"), ValidArgsFunction: completeSnapshots(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, tag, err := snapshotArgs(args)
			if err != nil {
				return err
			}
			return restoreSnapshot(cmd.Context(), a, vm, tag)
		},
	}
}

func restoreSnapshot(ctx context.Context, a *app, vm, tag string) error {
	engine, err := a.engine(nil)
	if err != nil {
		return err
	}
	r, err := a.rooms()
	if err != nil {
		return err
	}
	p := newProgress(a)
	p.begin("vm/"+vm, "setting its disks back")
	defer p.stop()
	return engine.Locked(ctx, vm, func(ctx context.Context, v reconcile.View) error {
		if !slices.ContainsFunc(v.Status.Snapshots, func(s reconcile.SnapshotStatus) bool { return s.Name == tag }) {
			return &reconcile.Error{
				Object: "snap/" + tag, Op: "restore", Err: reconcile.ErrNotFound, Detail: "of vm/" + vm,
				Hint: "see them with: maqet snapshot list " + vm,
			}
		}
		report, err := r.driver.RestoreSnapshot(ctx, &v.Machine.Object, v.Observed, tag)
		if err != nil {
			return err
		}
		p.stop()
		announce(a.env, vm, "disks %s set back to snapshot %s", strings.Join(report.Disks, ", "), tag)
		if report.Note != "" {
			fmt.Fprintln(a.env.out, report.Note)
		}
		return nil
	})
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
