package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/qemu"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

// rendered is what `render -o json` prints of one machine.
type rendered struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	// Files are the descriptors that QEMU gets besides the standard ones.
	Files []renderedFile `json:"files"`
}

// renderedFile is a descriptor that maqet opens and passes to QEMU.
type renderedFile struct {
	FD   int    `json:"fd"`
	Kind string `json:"kind"`
	// NIC is the card that the tap is for.
	NIC string `json:"nic,omitempty"`
}

// firstFD is the number of the first passed descriptor, behind the standard ones.
const firstFD = 3

func renderedFiles(files []qemu.File) []renderedFile {
	all := make([]renderedFile, 0, len(files))
	for i, f := range files {
		all = append(all, renderedFile{FD: firstFD + i, Kind: string(f.Kind), NIC: f.NIC})
	}
	return all
}

func newRender(a *app) *cobra.Command {
	var (
		files fileFlags
		out   outputFlag
	)
	cmd := &cobra.Command{
		Use:   "render [VM...] [-f PATH...]",
		Short: "Print the QEMU command line of machines",
		Long: `Print the whole command line with which a machine would be started: everything
the manifest asks for and the little that maqet adds. Without -f the machines
applied to this host are rendered. Nothing is started or written.

Descriptors (fd=3 and so on) are sockets and taps that maqet opens and passes;
"-o json" lists them.`,
		Example:           "  maqet render -f web.yaml\n  maqet render web -o json",
		ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			machines, err := renderTargets(cmd.Context(), a, &files, args)
			if err != nil {
				return invalid(a, err)
			}
			return renderAll(cmd.Context(), a, machines, f)
		},
	}
	files.add(cmd)
	out.add(cmd, "json", "yaml")
	return cmd
}

// renderTargets are the machines of the files, or those applied, that are named.
func renderTargets(ctx context.Context, a *app, files *fileFlags, args []string) ([]*manifest.VirtualMachine, error) {
	names, err := machineNames(args)
	if err != nil {
		return nil, err
	}
	var all []*manifest.VirtualMachine
	if len(files.paths) > 0 {
		set, err := files.load(ctx, a)
		if err != nil {
			return nil, err
		}
		all = set.VMs()
	} else {
		if all, err = appliedMachines(ctx, a); err != nil {
			return nil, err
		}
	}
	if len(names) == 0 {
		if len(all) == 0 {
			return nil, usagef("no machine to render; name manifests with -f")
		}
		return all, nil
	}
	var picked []*manifest.VirtualMachine
	for _, name := range names {
		vm := machineOf(all, name)
		if vm == nil {
			return nil, &reconcile.Error{Object: "vm/" + name, Op: "render", Err: reconcile.ErrNotFound, Hint: "name its manifest with -f"}
		}
		picked = append(picked, vm)
	}
	return picked, nil
}

func machineOf(all []*manifest.VirtualMachine, name string) *manifest.VirtualMachine {
	for _, vm := range all {
		if vm.Metadata.Name == name {
			return vm
		}
	}
	return nil
}

func renderAll(ctx context.Context, a *app, machines []*manifest.VirtualMachine, f format) error {
	r, err := a.rooms()
	if err != nil {
		return err
	}
	all := make([]rendered, 0, len(machines))
	for _, vm := range machines {
		command, err := r.driver.Render(ctx, vm)
		if err != nil {
			return err
		}
		all = append(all, rendered{Name: vm.Metadata.Name, Argv: command.Argv, Files: renderedFiles(command.Files)})
	}
	switch {
	case f.structured() && len(all) == 1:
		return f.write(a.env.out, all[0])
	case f.structured():
		return f.write(a.env.out, all)
	}
	for i, one := range all {
		if len(all) > 1 {
			if i > 0 {
				fmt.Fprintln(a.env.out)
			}
			fmt.Fprintf(a.env.out, "# vm/%s\n", one.Name)
		}
		fmt.Fprintln(a.env.out, qemu.QuoteShell(one.Argv))
	}
	return nil
}

// appliedMachines are the objects of all records.
func appliedMachines(ctx context.Context, a *app) ([]*manifest.VirtualMachine, error) {
	r, err := a.rooms()
	if err != nil {
		return nil, err
	}
	var all []*manifest.VirtualMachine
	err = r.store.View(ctx, func(tx *state.Tx) error {
		machines, err := tx.Machines()
		for _, m := range machines {
			all = append(all, &m.Object)
		}
		return err
	})
	return all, err
}

func knownMachines(ctx context.Context, a *app) ([]string, error) {
	machines, err := appliedMachines(ctx, a)
	names := make([]string, 0, len(machines))
	for _, vm := range machines {
		names = append(names, vm.Metadata.Name)
	}
	return names, err
}

// mustKnow refuses names that nothing is remembered of.
func mustKnow(ctx context.Context, a *app, names []string, op string) error {
	known, err := knownMachines(ctx, a)
	if err != nil {
		return err
	}
	var unknown []error
	for _, name := range names {
		if !slices.Contains(known, name) {
			unknown = append(unknown, &reconcile.Error{
				Object: "vm/" + name, Op: op, Err: reconcile.ErrNotFound,
				Hint: "see the names with: maqet get; apply a manifest to make one",
			})
		}
	}
	return errors.Join(unknown...)
}
