package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func newDisk(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disk",
		Short: "List disks, and delete or adopt those that nobody wants",
		Args:  noSubcommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDiskList(a), newDiskOrphans(a), newDiskDelete(a), newDiskAdopt(a))
	return cmd
}

func newDiskList(a *app) *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the disks of all machines",
		Example: "  maqet disk list\n  maqet disk list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			engine, err := a.reader(nil)
			if err != nil {
				return err
			}
			disks, err := engine.Disks(cmd.Context())
			switch {
			case err != nil:
				return err
			case f.structured():
				return f.write(a.env.out, disks)
			case len(disks) == 0:
				fmt.Fprintln(a.env.err, "No machine has a disk")
				return nil
			}
			rows := make([][]string, 0, len(disks))
			for _, d := range disks {
				used := "-"
				if d.PID != 0 {
					used = fmt.Sprintf("pid %d", d.PID)
				}
				rows = append(rows, []string{d.Machine, d.Disk, orDash(d.Kind), orDash(d.Format), sizeText(d.Size), sizeText(d.Allocated), used, orDash(d.Path), d.Err})
			}
			printTable(a.env.out, []string{"MACHINE", "DISK", "KIND", "FORMAT", "SIZE", "ALLOCATED", "USED BY", "PATH", "NOTE"}, rows)
			return nil
		},
	}
	out.add(cmd, "json", "yaml")
	return cmd
}

// sizeText is a number of bytes; a dash where it is not known.
func sizeText(n int64) string {
	if n == 0 {
		return "-"
	}
	return manifest.Quantity(n).String()
}

func newDiskOrphans(a *app) *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "orphans",
		Short: "List the disks in the state dir that no machine wants",
		Long: `List the disks in the state dir that no machine wants: what was kept of deleted
machines (kept/...), and what is in a machine's folder without being named in its
manifest. Nothing happens to them by itself.`,
		Example: "  maqet disk orphans",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			orphans, err := orphansOf(cmd.Context(), a)
			switch {
			case err != nil:
				return err
			case f.structured():
				return f.write(a.env.out, orphans)
			case len(orphans) == 0:
				fmt.Fprintln(a.env.err, "No orphans")
				return nil
			}
			rows := make([][]string, 0, len(orphans))
			for _, d := range orphans {
				rows = append(rows, []string{d.Name(), sizeText(d.Size), sizeText(d.Allocated), orDash(strings.Join(d.Snapshots, ", ")), orDash(strings.Join(d.UsedBy, ", ")), d.Path, d.Err})
			}
			printTable(a.env.out, []string{"NAME", "SIZE", "ALLOCATED", "SNAPSHOTS", "USED BY", "PATH", "NOTE"}, rows)
			return nil
		},
	}
	out.add(cmd, "json", "yaml")
	return cmd
}

func orphansOf(ctx context.Context, a *app) ([]driver.StoredDisk, error) {
	engine, err := a.reader(nil)
	if err != nil {
		return nil, err
	}
	orphans, err := engine.Orphans(ctx)
	if orphans == nil {
		orphans = []driver.StoredDisk{}
	}
	return orphans, err
}

func newDiskDelete(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Delete disks that no machine wants, for good",
		Long: `Delete orphans, by the names that "maqet disk orphans" shows; kept/FOLDER alone is
all that was kept of a machine. A disk that a machine wants or a process has open is
refused. On a terminal it asks first; elsewhere it needs --yes.`,
		Example: "  maqet disk delete kept/web-1a2b3c4d/root --yes\n  maqet disk delete kept/web-1a2b3c4d --yes",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs the name of an orphan", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: completeOrphans(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			var refs []driver.StoredRef
			for _, arg := range args {
				ref, err := storedRef(arg)
				if err != nil {
					return err
				}
				refs = append(refs, ref)
			}
			return deleteOrphans(cmd.Context(), a, refs, yes)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "delete without asking")
	return cmd
}

func deleteOrphans(ctx context.Context, a *app, refs []driver.StoredRef, yes bool) error {
	engine, err := a.engine(nil)
	if err != nil {
		return err
	}
	if !yes {
		if err := confirmDelete(ctx, a, refs); err != nil {
			return err
		}
	}
	for _, ref := range refs {
		if err := engine.DeleteOrphan(ctx, ref); err != nil {
			return err
		}
		fmt.Fprintf(a.env.out, "disk %s deleted\n", ref)
	}
	return nil
}

// confirmDelete asks a person whether the disks may go.
func confirmDelete(ctx context.Context, a *app, refs []driver.StoredRef) error {
	if !a.env.inTTY || !a.env.errTTY {
		return usagef("this deletes data for good, and nobody can be asked here; say --yes")
	}
	orphans, err := orphansOf(ctx, a)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		fmt.Fprintln(a.env.err, ref.String())
		for _, d := range orphans {
			if ref.Matches(d) {
				fmt.Fprintf(a.env.err, "  disk %s, %s, takes %s\n", d.Disk, sizeText(d.Size), sizeText(d.Allocated))
			}
		}
	}
	fmt.Fprint(a.env.err, "Delete this for good? Type yes: ")
	answer, err := bufio.NewReader(a.env.in).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return errors.Join(errors.New("nothing was deleted: the answer was not yes"), err)
	}
	return nil
}

func newDiskAdopt(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "adopt {KEPT VM | NAME VM/DISK}",
		Short: "Give what was kept of a deleted machine to another",
		Long: `Give a machine that has no disks yet all that was kept of a deleted one: its disks,
snapshots and identity, so that the guest finds its addresses and slots again. Or
give a machine one disk, under a name of which it has none. The machine must not run.
Nothing is overwritten.`,
		Example:           "  maqet disk adopt kept/web-1a2b3c4d shop      # then apply shop\n  maqet disk adopt kept/web-1a2b3c4d/root db/old",
		Args:              exactArgs("what to adopt", "the machine that gets it"),
		ValidArgsFunction: completeOrphans(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := storedRef(args[0])
			if err != nil {
				return err
			}
			vm, as, err := adopter(args[1], ref)
			if err != nil {
				return err
			}
			engine, err := a.engine(nil)
			if err != nil {
				return err
			}
			if err := engine.Adopt(cmd.Context(), ref, vm, as); err != nil {
				return err
			}
			if as == "" {
				announce(a.env, vm, "has all that was kept in %s; apply its manifest to start it", ref)
			} else {
				announce(a.env, vm, "has %s as its disk %s", ref, as)
			}
			return nil
		},
	}
}

// storedRef reads the name of a stored disk or a kept folder.
func storedRef(arg string) (driver.StoredRef, error) {
	parts := strings.Split(arg, "/")
	kept := parts[0]+"/" == driver.KeptPrefix
	switch {
	case slices.Contains(parts, ""), slices.Contains(parts, ".."), strings.HasPrefix(parts[len(parts)-1], "."):
	case kept && len(parts) == 2:
		return driver.StoredRef{Folder: arg}, nil
	case kept && len(parts) == 3:
		return driver.StoredRef{Folder: parts[0] + "/" + parts[1], Disk: parts[2]}, nil
	case !kept && len(parts) == 2:
		return driver.StoredRef{Folder: parts[0], Disk: parts[1]}, nil
	}
	return driver.StoredRef{}, usagef("%q is no name of an orphan; \"maqet disk orphans\" shows them", arg)
}

// adopter reads who gets a disk: a machine for a folder, a machine and a name for a disk.
func adopter(arg string, ref driver.StoredRef) (vm, as string, err error) {
	vm, as, hasDisk := strings.Cut(arg, "/")
	switch {
	case ref.Disk == "" && hasDisk:
		return "", "", usagef("%s is a whole folder, which a machine gets and no disk; name the machine alone, or one of the folder's disks", ref)
	case ref.Disk != "" && !hasDisk:
		return "", "", usagef("%s is one disk; say which disk of %s it becomes: %s/NAME", ref, vm, vm)
	}
	if vm, err = machineName(vm); err != nil {
		return "", "", err
	}
	if hasDisk {
		if err := manifest.ValidDeviceName(as); err != nil {
			return "", "", usagef("%q cannot be the name of a disk: %w", as, err)
		}
	}
	return vm, as, nil
}

// completeOrphans completes the names of orphans, of which most are wanted.
func completeOrphans(a *app, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		orphans, err := orphansOf(cmd.Context(), a)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, d := range orphans {
			for _, name := range []string{d.Folder, d.Name()} {
				whole := name == d.Folder
				if whole && !(driver.StoredRef{Folder: name}).IsKept() || !strings.HasPrefix(name, prefix) || slices.Contains(args, name) || slices.Contains(names, name) {
					continue
				}
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
