// Command bench measures the built maqet against the least that any program
// must do for the same result, on real QEMU, and prints a table of ratios.
//
//	go run ./e2e/cmd/bench -maqet bin/maqet
//	go run ./e2e/cmd/bench -run '^apply' -n 40 -o json
//
// `make bench` runs it with everything in place. Nothing fails because a figure
// is large. Interrupted, it kills what it started and prints what it has.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/maqet/maqet/e2e/internal/bench"
)

// The exit codes, which are those of maqet itself.
const (
	exitFailed      = 1
	exitUsage       = 3
	exitInterrupted = 130
)

// options are the flags.
type options struct {
	maqet, guest, run, output, save string
	runs, machines, manifests       int
	// cases are those that run selects.
	cases []bench.Case
}

// errUsage is a flag that cannot be used.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return
	case interrupted:
		fmt.Fprintln(os.Stderr, "bench: interrupted; what it started is killed")
		os.Exit(exitInterrupted)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(exitUsage)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(exitFailed)
	}
}

// parse reads the flags.
func parse(args []string, errs io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.StringVar(&o.maqet, "maqet", "bin/maqet", "the built maqet")
	flags.StringVar(&o.guest, "guest", "build/guest", "the folder of the tiny guest, made by: make guest")
	flags.StringVar(&o.run, "run", "", "only the cases whose name this regular expression matches")
	flags.IntVar(&o.runs, "n", 20, "pairs of runs; cases that take seconds get a quarter")
	flags.IntVar(&o.machines, "machines", 50, "machines in the cases with many")
	flags.IntVar(&o.manifests, "manifests", 2000, "manifests in the case of validate")
	flags.StringVar(&o.output, "o", "table", "what to print: table or json")
	flags.StringVar(&o.save, "save", "", "also write the table to this file")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("%w: nothing is expected behind the flags, but there is %q", errUsage, flags.Arg(0))
	case o.output != "table" && o.output != "json":
		return o, fmt.Errorf("%w: -o %s: use table or json", errUsage, o.output)
	case o.runs < 1 || o.machines < 1 || o.manifests < 1:
		return o, fmt.Errorf("%w: -n, -machines and -manifests must be at least 1", errUsage)
	}
	selected, err := regexp.Compile(o.run)
	if err != nil {
		return o, fmt.Errorf("%w: -run: %w", errUsage, err)
	}
	for _, c := range bench.Cases(bench.Config{Machines: o.machines, Manifests: o.manifests}) {
		if selected.MatchString(c.Name) {
			o.cases = append(o.cases, c)
		}
	}
	if len(o.cases) == 0 {
		return o, fmt.Errorf("%w: -run %s matches no case", errUsage, o.run)
	}
	// Commands are run in other folders.
	if o.maqet, err = filepath.Abs(o.maqet); err != nil {
		return o, fmt.Errorf("%w: -maqet: %w", errUsage, err)
	}
	if o.guest, err = filepath.Abs(o.guest); err != nil {
		return o, fmt.Errorf("%w: -guest: %w", errUsage, err)
	}
	return o, nil
}

func run(ctx context.Context, args []string, out, errs io.Writer) (err error) {
	o, err := parse(args, errs)
	if err != nil {
		return err
	}
	computer, err := bench.ThisComputer(ctx, o.maqet)
	if err != nil {
		return err
	}
	tools, err := os.MkdirTemp("", "mqbtool")
	if err != nil {
		return fmt.Errorf("make a folder for the yardstick: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tools)) }()
	rawclient, err := buildRawclient(ctx, tools)
	if err != nil {
		return err
	}
	lab, err := bench.NewLab(bench.Config{Maqet: o.maqet, Rawclient: rawclient, Guest: o.guest, Machines: o.machines, Manifests: o.manifests})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()

	var (
		results []bench.Result
		failed  error
	)
	for i, c := range o.cases {
		fmt.Fprintf(errs, "%d/%d %s: %s\n", i+1, len(o.cases), c.Name, c.Does)
		r := bench.Run(ctx, lab, c, o.runs)
		results = append(results, r)
		if ctx.Err() != nil {
			failed = errors.Join(failed, ctx.Err())
			break
		}
		if r.Err != nil && !r.Skipped() {
			failed = errors.Join(failed, r.Err)
		}
	}
	return errors.Join(failed, o.show(out, computer, results))
}

// show prints the results, and keeps the table when asked to.
func (o options) show(out io.Writer, computer bench.Computer, results []bench.Result) (err error) {
	write := bench.WriteTable
	if o.output == "json" {
		write = bench.WriteJSON
	}
	if err := write(out, computer, results); err != nil || o.save == "" {
		return err
	}
	file, err := os.Create(o.save)
	if err != nil {
		return fmt.Errorf("keep the table: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return bench.WriteTable(file, computer, results)
}

// buildRawclient builds the yardstick just like maqet is built for release.
func buildRawclient(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "rawclient")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path,
		"github.com/maqet/maqet/e2e/cmd/rawclient")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the yardstick: %w; run bench inside the source tree\n%s", err, text)
	}
	return path, nil
}
