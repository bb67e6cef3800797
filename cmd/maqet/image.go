package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/disk/imagestore"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Aliases: []string{"img"},
		Short: "List, fetch and remove the images that disks are made of",
		Args:  noSubcommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImageList(a), newImagePull(a), newImagePrune(a))
	return cmd
}

func newImageList(a *app) *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the images that are stored, and who reads from them",
		Long: `List the images that are stored on this host by their digests, which Image objects
name them, and which disks read from them: those of machines, those kept of deleted
machines, and files that machines name. What was fetched only in part is listed too.`,
		Example: "  maqet image list\n  maqet image list -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			return listImages(cmd.Context(), a, f)
		},
	}
	out.add(cmd, "json", "yaml")
	return cmd
}

func listImages(ctx context.Context, a *app, f format) error {
	known, warnings, err := knownImages(ctx, a)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(a.env.err, "warning:", w)
	}
	list, err := a.built.imageStore.List(ctx, known)
	if err != nil {
		return err
	}
	switch {
	case f.structured():
		return f.write(a.env.out, list)
	case len(list.Images)+len(list.Parts) == 0:
		fmt.Fprintln(a.env.err, "No images are stored. One is fetched when a disk is to be made of it, or by: maqet image pull")
		return nil
	}
	var rows [][]string
	for _, i := range list.Images {
		rows = append(rows, []string{
			manifest.ShortDigest(i.Digest), orDash(i.Format), manifest.Quantity(i.Size).String(), byteWords(i.Stored),
			orDash(strings.Join(i.Names, ",")), orDash(strings.Join(i.Users, ", ")), i.Err,
		})
	}
	for _, p := range list.Parts {
		note := "only in part"
		if p.Pull != nil {
			note = p.Pull.What + " by " + p.Pull.Who
		}
		of := ""
		if p.Total > 0 {
			of = " of " + byteWords(p.Total)
		}
		rows = append(rows, []string{manifest.ShortDigest(p.Digest), "-", "-", byteWords(p.Bytes) + of, orDash(strings.Join(p.Names, ",")), "-", note})
	}
	printTable(a.env.out, []string{"DIGEST", "FORMAT", "SIZE", "STORED", "IMAGES", "READ BY", "NOTE"}, rows)
	return nil
}

// knownImages is what the records say of images, and of the files of machines. The
// warnings are of records that are lost, which may have said more.
func knownImages(ctx context.Context, a *app) (known imagestore.Known, warnings []error, err error) {
	known = imagestore.Known{Names: map[string][]string{}, Files: map[string]string{}}
	r, err := a.rooms()
	if err != nil {
		return known, nil, err
	}
	err = r.store.View(ctx, func(tx *state.Tx) error {
		images, err := tx.Images()
		if err != nil {
			return err
		}
		machines, err := tx.Machines()
		if err != nil {
			return err
		}
		warnings = tx.Warnings()
		for _, i := range images {
			if digest := r.imageStore.Look(i.Object.Spec).Digest; digest != "" {
				known.Names[digest] = append(known.Names[digest], i.Object.Metadata.Name)
			}
		}
		for _, m := range machines {
			for _, d := range m.Object.Spec.Disks {
				if d.File != "" {
					known.Files[d.File] = "vm/" + m.Object.Metadata.Name + " disk " + d.Name
				}
			}
		}
		return nil
	})
	return known, warnings, err
}

func newImagePull(a *app) *cobra.Command {
	var files fileFlags
	cmd := &cobra.Command{
		Use:   "pull {IMAGE... | -f PATH...}",
		Short: "Fetch images before a machine needs them",
		Long: `Fetch images, verify their digests, unpack and check them. Those named are Image
objects that were applied; with -f they are those of manifests, which need not be.

A fetch that is interrupted goes on where it ended when it is asked for again. A
file without a digest that has changed since it was taken is taken anew: disks that
were made of it stay as they are, and plan tells what they should be made of.`,
		Example:           "  maqet image pull debian-12\n  maqet image pull -f vms/",
		ValidArgsFunction: completeImages(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := imagesToPull(cmd.Context(), a, &files, args)
			if err != nil {
				return err
			}
			return pullImages(cmd.Context(), a, images)
		},
	}
	files.add(cmd)
	return cmd
}

// imagesToPull are the images of manifests, or those of the names that are known.
func imagesToPull(ctx context.Context, a *app, files *fileFlags, args []string) ([]*manifest.Image, error) {
	names, err := imageNames(args)
	if err != nil {
		return nil, err
	}
	if len(files.paths) > 0 {
		if len(names) > 0 {
			return nil, usagef("give names or -f, not both")
		}
		set, err := files.load(ctx, a)
		if err != nil {
			return nil, invalid(a, err)
		}
		return set.Images(), nil
	}
	if len(names) == 0 {
		return nil, usagef("no image named; give names, or -f with manifests")
	}
	engine, err := a.reader(nil)
	if err != nil {
		return nil, err
	}
	views, err := engine.Images(ctx, names)
	if err != nil {
		return nil, err
	}
	images := make([]*manifest.Image, 0, len(views))
	for _, v := range views {
		images = append(images, &v.Image.Object)
	}
	return images, nil
}

// imageNames are names as people write them: debian-12 or img/debian-12.
func imageNames(args []string) ([]string, error) {
	var names []string
	for _, arg := range args {
		kind, name, hasKind := cutKind(arg)
		if hasKind && kind != manifest.KindImage {
			return nil, usagef("%q is no image", arg)
		}
		if err := manifest.ValidName(name); err != nil {
			return nil, usagef("%q cannot be the name of an image: %w", arg, err)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func pullImages(ctx context.Context, a *app, images []*manifest.Image) error {
	p := newProgress(a)
	engine, err := a.engine(p.report)
	if err != nil {
		return err
	}
	results := engine.PullImages(ctx, images)
	p.stop()
	worst := error(nil)
	for _, r := range results {
		s := r.State
		switch {
		case errors.Is(r.Err, reconcile.ErrInterrupted):
			fmt.Fprintf(a.env.err, "img/%s interrupted: what was fetched so far is kept; do the same again to go on\n", r.Name)
		case r.Err != nil:
			printError(a.env, r.Err)
		case r.Fetched:
			fmt.Fprintf(a.env.out, "img/%s fetched: %s of %s (%s)\n", r.Name, s.Format, manifest.Quantity(s.Size), manifest.ShortDigest(s.Digest))
		default:
			fmt.Fprintf(a.env.out, "img/%s is here already (%s)\n", r.Name, manifest.ShortDigest(s.Digest))
		}
		if r.Err != nil {
			worst = worse(ctx, worst, &printedError{r.Err})
		}
	}
	return worst
}

func newImagePrune(a *app) *cobra.Command {
	var (
		opt imagestore.PruneOptions
		out outputFlag
	)
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that nothing needs",
		Long: `Remove stored images that no Image object names and that nothing reads from, and
what was fetched only in part of such. An image that a disk of a machine, a kept disk
of a deleted one, one of their snapshots or a running process reads from is never
removed. What stays is told, and why.`,
		Example: "  maqet image prune --dry-run\n  maqet image prune\n  maqet image prune --all",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			return pruneImages(cmd.Context(), a, opt, f)
		},
	}
	cmd.Flags().BoolVar(&opt.All, "all", false, "also those that an Image object names, if nothing reads from them")
	cmd.Flags().BoolVar(&opt.DryRun, "dry-run", false, "tell what would be removed, and remove nothing")
	out.add(cmd, "json", "yaml")
	return cmd
}

func pruneImages(ctx context.Context, a *app, opt imagestore.PruneOptions, f format) error {
	known, warnings, err := knownImages(ctx, a)
	if err = errors.Join(err, errors.Join(warnings...)); err != nil {
		return fmt.Errorf("nothing is removed, since not all that may need an image could be read: %w", err)
	}
	done, err := a.built.imageStore.Prune(ctx, known, opt)
	if err != nil {
		return fmt.Errorf("nothing more is removed: %w", err)
	}
	failed := error(nil)
	freed, count := int64(0), 0
	for _, p := range done {
		if p.Removed {
			freed += p.Bytes
			count++
		}
		if p.Err != nil {
			failed = &printedError{p.Err}
		}
	}
	if f.structured() {
		if done == nil {
			done = []imagestore.Pruned{}
		}
		return errors.Join(f.write(a.env.out, done), failed)
	}
	verb := "removed"
	if opt.DryRun {
		verb = "would remove"
	}
	for _, p := range done {
		name := strings.TrimSpace(p.What + " " + manifest.ShortDigest(p.Digest))
		switch {
		case p.Err != nil:
			printError(a.env, fmt.Errorf("remove %s: %w", p.Path, p.Err))
		case p.Removed:
			fmt.Fprintf(a.env.out, "%s %s, %s: %s\n", verb, name, byteWords(p.Bytes), p.Why)
		default:
			fmt.Fprintf(a.env.out, "kept %s: %s\n", name, p.Why)
		}
	}
	fmt.Fprintf(a.env.out, "%s %s, %s\n", describeCount(count, "file"), verb, byteWords(freed))
	return failed
}
