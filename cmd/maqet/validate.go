package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
)

func newValidate(a *app) *cobra.Command {
	var (
		files fileFlags
		out   outputFlag
		host  bool
	)
	cmd := &cobra.Command{
		Use:   "validate -f PATH...",
		Short: "Check manifests and touch nothing",
		Long: `Check manifests: keys, types, sizes, names, and that the set fits together.
Nothing is touched and QEMU need not be installed. With --host the emulator of
each machine is asked too: its version, machine type, CPU model, devices and
accelerators.`,
		Example: "  maqet validate -f vms/\n  maqet validate -f vms/ -o json\n  cat web.yaml | maqet validate -f -",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			set, err := files.load(cmd.Context(), a)
			if err == nil && host {
				err = checkHost(cmd.Context(), a, set)
			}
			return reportValidation(a, f, set, err)
		},
	}
	files.add(cmd)
	out.add(cmd, "json", "yaml")
	cmd.Flags().BoolVar(&host, "host", false, "also ask this host's QEMU")
	return cmd
}

func reportValidation(a *app, f format, set *manifest.Set, err error) error {
	var errs manifest.Errors
	if err != nil && !errors.As(err, &errs) {
		return err
	}
	v := validation{Valid: len(errs) == 0, Errors: errs, Warnings: manifest.Errors{}}
	if v.Errors == nil {
		v.Errors = manifest.Errors{}
	}
	if set != nil {
		v.Files, v.Objects = len(set.Files), len(set.Objects)
		v.Warnings = append(v.Warnings, set.Warnings...)
	}
	switch {
	case f.structured():
		if err := f.write(a.env.out, v); err != nil {
			return err
		}
		if !v.Valid {
			return &outcomeError{code: exitInvalid}
		}
		return nil
	case !v.Valid:
		printWarnings(a.env, v.Warnings)
		return invalid(a, errs)
	default:
		printWarnings(a.env, v.Warnings)
		fmt.Fprintf(a.env.out, "%s in %s, all valid\n", describeCount(v.Objects, "object"), describeCount(v.Files, "file"))
		return nil
	}
}

// checkHost asks each machine's emulator whether it can run the machine, and
// returns what it cannot as manifest errors with the positions of the objects.
func checkHost(ctx context.Context, a *app, set *manifest.Set) error {
	r, err := a.rooms()
	if err != nil {
		return err
	}
	var errs manifest.Errors
	for _, o := range set.Objects {
		if o.VM == nil {
			continue
		}
		_, findings, err := r.prober.Check(ctx, o.VM)
		if err != nil {
			return err
		}
		for _, f := range findings {
			errs = append(errs, &manifest.Error{Position: o.PositionOf(f.Path), Path: f.Path, Msg: f.Msg, Hint: f.Hint})
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}
