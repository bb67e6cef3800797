package main

import (
	"context"
	"fmt"
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
		Use:   "delete {VM... | img/IMAGE... | -f PATH...}",
		Short: "Stop machines and forget them; disks are kept",
		Long: `Stop machines gracefully and forget them. Their disks move to the state dir's
disks/.kept folder, unless --delete-disks is given or the manifest says
onDelete: {disks: Delete}. Image files that the manifest names by path are never
touched. Deleting what does not exist is no error with -f.

An Image object is forgotten when no machine names it any more, those of the same
command excepted; what is stored of it stays until maqet image prune.`,
		Example:           "  maqet delete web\n  maqet delete -f vms/\n  maqet delete web --delete-disks\n  maqet delete img/debian-12",
		ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			args, images, err := splitDeleted(args)
			if err != nil {
				return err
			}
			var names []string
			if len(args) > 0 || len(images) == 0 || len(files.paths) > 0 {
				if names, images, err = deleteNames(ctx, a, &files, args, images); err != nil {
					return err
				}
			}
			opt := reconcile.DeleteOptions{DeleteDisks: disks, Options: reconcile.Options{Force: force}}
			if len(names) > 0 || len(images) == 0 {
				err = onMachines(ctx, a, names, func(ctx context.Context, e *reconcile.Engine, _ *progress, name string) (reconcile.Result, error) {
					return e.Delete(ctx, name, opt)
				})
			}
			if err != nil {
				return err // What disks are made of is not forgotten before them.
			}
			return deleteImages(ctx, a, images)
		},
	}
	files.add(cmd)
	cmd.Flags().BoolVar(&disks, "delete-disks", false, "delete the disks that maqet made, with all their data")
	cmd.Flags().BoolVar(&force, "force", false, "do not ask the guest to power off")
	return cmd
}

// splitDeleted tells img/NAME from the names of machines, which are left as they are.
func splitDeleted(args []string) (machines, images []string, err error) {
	for _, arg := range args {
		if kind, name, hasKind := cutKind(arg); hasKind && kind == manifest.KindImage {
			images = append(images, name)
		} else {
			machines = append(machines, arg)
		}
	}
	images, err = imageNames(images)
	return machines, images, err
}

// deleteImages forgets Image objects.
func deleteImages(ctx context.Context, a *app, names []string) error {
	if len(names) == 0 {
		return nil
	}
	engine, err := a.engine(nil)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := engine.DeleteImage(ctx, name); err != nil {
			return err
		}
		fmt.Fprintf(a.env.out, "img/%s deleted; what is stored of it stays until maqet image prune\n", name)
	}
	return nil
}

// deleteNames are the machines and images to delete: those named, or those of the
// files that are known to this host.
func deleteNames(ctx context.Context, a *app, files *fileFlags, args, images []string) (machines, forgotten []string, err error) {
	switch {
	case len(files.paths) > 0 && len(args)+len(images) > 0:
		return nil, nil, usagef("give names or -f, not both")
	case len(files.paths) == 0 && len(args) == 0:
		return nil, nil, usagef("no machine named; give names, or -f with manifests")
	case len(args) > 0:
		return args, images, nil
	}
	set, err := files.load(ctx, a)
	if err != nil {
		return nil, nil, invalid(a, err)
	}
	known, err := knownMachines(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	knownImages, err := appliedImages(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	for _, img := range set.Images() {
		name := img.Metadata.Name
		if slices.ContainsFunc(knownImages, func(o *manifest.Object) bool { return o.Image.Metadata.Name == name }) {
			forgotten = append(forgotten, name)
		}
	}
	var names []string
	for _, vm := range set.VMs() {
		if slices.Contains(known, vm.Metadata.Name) {
			names = append(names, vm.Metadata.Name)
		} else {
			announce(a.env, vm.Metadata.Name, "does not exist")
		}
	}
	return names, forgotten, nil
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
	case "img", "imgs", "image", "images", "Image":
		return manifest.KindImage
	default:
		return ""
	}
}
