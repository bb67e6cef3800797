package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

func newDelete(a *app) *cobra.Command {
	var (
		files fileFlags
		disks bool
		force bool
	)
	cmd := &cobra.Command{
		Use:   "delete {VM... | -f PATH...}",
		Short: "Stop machines and forget them; disks are kept",
		Long: `Stop machines gracefully and forget them. Their disks move to the state dir's
disks/.kept folder, unless --delete-disks is given or the manifest says
onDelete: {disks: Delete}. Image files that the manifest names by path are never
touched. Deleting what does not exist is no error with -f.`,
		Example:           "  maqet delete web\n  maqet delete -f vms/\n  maqet delete web --delete-disks",
		ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			names, err := deleteNames(ctx, a, &files, args)
			if err != nil {
				return err
			}
			opt := reconcile.DeleteOptions{DeleteDisks: disks, Options: reconcile.Options{Force: force}}
			return onMachines(ctx, a, names, func(ctx context.Context, e *reconcile.Engine, _ *progress, name string) (reconcile.Result, error) {
				return e.Delete(ctx, name, opt)
			})
		},
	}
	files.add(cmd)
	cmd.Flags().BoolVar(&disks, "delete-disks", false, "delete the disks that maqet made, with all their data")
	cmd.Flags().BoolVar(&force, "force", false, "do not ask the guest to power off")
	return cmd
}

// deleteNames are the machines to delete: those named, or those of the files
// that are known to this host.
func deleteNames(ctx context.Context, a *app, files *fileFlags, args []string) ([]string, error) {
	switch {
	case len(files.paths) > 0 && len(args) > 0:
		return nil, usagef("give names or -f, not both")
	case len(files.paths) == 0 && len(args) == 0:
		return nil, usagef("no machine named; give names, or -f with manifests")
	case len(args) > 0:
		return args, nil
	}
	set, err := files.load(ctx, a)
	if err != nil {
		return nil, invalid(a, err)
	}
	known, err := knownMachines(ctx, a)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, vm := range set.VMs() {
		if slices.Contains(known, vm.Metadata.Name) {
			names = append(names, vm.Metadata.Name)
		} else {
			announce(a.env, vm.Metadata.Name, "does not exist")
		}
	}
	return names, nil
}

// cutKind splits vm/web. Without a slash the kind is a machine's.
func cutKind(arg string) (kind manifest.Kind, name string, hasKind bool) {
	for i := range len(arg) {
		if arg[i] == '/' {
			return kindOf(arg[:i]), arg[i+1:], true
		}
	}
	return manifest.KindVirtualMachine, arg, false
}

// kindOf reads a kind as people write it; "" is none.
func kindOf(word string) manifest.Kind {
	switch word {
	case "vm", "vms", "virtualmachine", "virtualmachines", "VirtualMachine":
		return manifest.KindVirtualMachine
	case "snap", "snaps", "snapshot", "snapshots", "Snapshot":
		return manifest.KindSnapshot
	default:
		return ""
	}
}
