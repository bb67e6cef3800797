package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// fileFlags is -f, which names the manifests a command reads.
type fileFlags struct{ paths []string }

func (f *fileFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.paths, "filename", "f", nil, "file or folder (`PATH`) of manifests, or - for stdin; may be given again")
	if err := cmd.MarkFlagFilename("filename", "yaml", "yml", "json"); err != nil {
		panic(err)
	}
}

// load reads the manifests and checks that they fit together and beside the
// other machines of this host. Warnings are in the set; errors come back whole.
func (f *fileFlags) load(ctx context.Context, a *app) (*manifest.Set, error) {
	if len(f.paths) == 0 {
		return nil, usagef("no manifests named; use -f with a file or folder")
	}
	r, err := a.rooms()
	if err != nil {
		return nil, err
	}
	set, err := manifest.Load(ctx, f.paths, manifest.LoadOptions{Stdin: a.env.in, Arch: hostArch(), Files: r.files})
	var faults manifest.Errors
	if err != nil && !errors.As(err, &faults) {
		return nil, err
	}
	others, err := undeclared(ctx, a)
	if err != nil {
		return nil, err
	}
	refusals, warnings := manifest.Admit(set.Objects, others, hostFacts()).Split()
	set.Warnings = append(set.Warnings, warnings...)
	set.Warnings.Sort()
	faults = append(faults, refusals...)
	faults.Sort()
	if len(faults) > 0 {
		return set, faults
	}
	return set, nil
}

// undeclared are the machines of this host that should not be stopped, and its
// images: those that the manifests do not name hold their ports, addresses and
// disks too.
// Admission leaves out the ones that are named.
func undeclared(ctx context.Context, a *app) ([]*manifest.Object, error) {
	machines, err := appliedMachines(ctx, a)
	if err != nil {
		return nil, err
	}
	var others []*manifest.Object
	for _, vm := range machines {
		if vm.Spec.PowerState == manifest.PowerStopped {
			continue
		}
		o, err := manifest.NewObject(vm)
		if err != nil {
			return nil, err
		}
		others = append(others, o)
	}
	images, err := appliedImages(ctx, a)
	return append(others, images...), err
}

// appliedImages are the Image objects that this host knows, whoever applied them.
func appliedImages(ctx context.Context, a *app) ([]*manifest.Object, error) {
	r, err := a.rooms()
	if err != nil {
		return nil, err
	}
	var found []*manifest.Object
	err = r.store.View(ctx, func(tx *state.Tx) error {
		images, err := tx.Images()
		if err != nil {
			return err
		}
		found = found[:0]
		for _, i := range images {
			o, err := manifest.NewObject(&i.Object)
			if err != nil {
				return err
			}
			found = append(found, o)
		}
		return nil
	})
	return found, err
}

// hostFacts are this host's memory and processors; what cannot be read is zero,
// which is not weighed.
func hostFacts() manifest.HostFacts {
	facts := manifest.HostFacts{CPUs: runtime.NumCPU()}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		facts.MemoryBytes = int64(info.Totalram) * int64(info.Unit) //nolint:gosec // no host has 8 EiB
	}
	return facts
}

func printWarnings(env environment, warnings manifest.Errors) {
	prefix := "warning:"
	if env.color(env.errTTY) {
		prefix = styleWarn.Sprint(prefix)
	}
	for _, w := range warnings {
		fmt.Fprintln(env.err, prefix, w)
	}
}

// validation is what `validate -o json` prints.
type validation struct {
	Valid    bool            `json:"valid"`
	Files    int             `json:"files"`
	Objects  int             `json:"objects"`
	Errors   manifest.Errors `json:"errors"`
	Warnings manifest.Errors `json:"warnings"`
}

// invalid prints every error of the manifests, a line each, and ends the
// command with the exit code for invalid input. Other errors pass through.
func invalid(a *app, err error) error {
	var errs manifest.Errors
	if !errors.As(err, &errs) {
		return err
	}
	for _, e := range errs {
		fmt.Fprintln(a.env.err, colorPosition(a.env, e))
	}
	fmt.Fprintf(a.env.err, "%s in the manifests; nothing was touched\n", describeCount(len(errs), "error"))
	return &outcomeError{code: exitInvalid}
}

func colorPosition(env environment, e *manifest.Error) string {
	text := e.Error()
	if !env.color(env.errTTY) {
		return text
	}
	if pos := e.Position.String(); len(pos) < len(text) && text[:len(pos)] == pos {
		return styleDim.Sprint(pos) + text[len(pos):]
	}
	return text
}
