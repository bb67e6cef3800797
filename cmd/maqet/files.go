package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
)

// fileFlags is -f, which names the manifests a command reads.
type fileFlags struct{ paths []string }

func (f *fileFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.paths, "filename", "f", nil, "file or folder of manifests, or - for stdin; may be given again")
	if err := cmd.MarkFlagFilename("filename", "yaml", "yml", "json"); err != nil {
		panic(err)
	}
}

// load reads the manifests and prints warnings. Errors come back whole.
func (f *fileFlags) load(ctx context.Context, a *app) (*manifest.Set, error) {
	if len(f.paths) == 0 {
		return nil, usagef("no manifests named; use -f with a file or folder")
	}
	set, err := manifest.Load(ctx, f.paths, manifest.LoadOptions{Stdin: a.env.in, Arch: hostArch()})
	if set != nil {
		printWarnings(a.env, set.Warnings)
	}
	return set, err
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
