package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, env environment) int {
	out := &answer{to: env.out}
	env.out = out
	a := &app{env: env, logLevel: slog.LevelWarn}
	root := newRoot(a) //nolint:contextcheck // commands take the context of ExecuteContext below
	root.SetArgs(args)
	root.SetIn(env.in)
	root.SetOut(env.out)
	root.SetErr(env.err)
	err := root.ExecuteContext(ctx)
	a.close(context.WithoutCancel(ctx))
	if err == nil && out.err != nil {
		err = fmt.Errorf("write the answer: %w; what was asked for was done", out.err)
	}
	code := exitCode(ctx, err)
	switch {
	case err == nil, err.Error() == "", errors.As(err, new(*printedError)):
	case code == exitInterrupted:
		fmt.Fprintln(env.err, "Interrupted:", err)
	default:
		printError(env, err)
	}
	return code
}

// answer is standard output, which remembers that it could not be written: a
// full disk must not look like success.
type answer struct {
	to  io.Writer
	err error
}

// Write writes through, and keeps the first error.
func (w *answer) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	if err != nil && w.err == nil {
		w.err = err
	}
	return n, err
}

// printedError is an error that the command has shown already.
type printedError struct{ err error }

func (e *printedError) Error() string { return e.err.Error() }
func (e *printedError) Unwrap() error { return e.err }

func printError(env environment, err error) {
	prefix := "Error:"
	if env.color(env.errTTY) {
		prefix = styleBad.Sprint("Error:")
	}
	fmt.Fprintln(env.err, prefix, err)
	if _, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintln(env.err, "Run the command with --help to see how it is used.")
	}
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "maqet",
		Short: "Keep this host's virtual machines as a folder of files says they should be",
		Long: `maqet keeps the virtual machines of one host as a folder of YAML files says they
should be. It compares each file with the running QEMU itself, asked over QMP,
and starts, stops and changes what differs. A guest is never stopped, and a disk
never deleted, unless a file or a flag says so.`,
		Example: `  maqet validate -f vms/     # check the files, touch nothing
  maqet plan -f vms/         # what would be done, and at what price
  maqet apply -f vms/        # do it
  maqet get                  # what runs`,
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		Args:                       noSubcommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		a.command = strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.globals.stateDir, "state-dir", "", "folder (`DIR`) of database, disks and logs (default /var/lib/maqet, or XDG's for users; env MAQET_STATE_DIR)")
	flags.StringVar(&a.globals.runDir, "run-dir", "", "folder (`DIR`) of sockets and locks (default /run/maqet, or XDG's for users; env MAQET_RUN_DIR)")
	flags.StringVar(&a.globals.timeouts, "timeouts", "", "change waits, as `NAME=DURATION,...` (names: \"maqet help timeouts\")")
	flags.BoolVarP(&a.globals.verbose, "verbose", "v", false, "tell on stderr what is done and why")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(name)
	})
	root.CompletionOptions.DisableDefaultCmd = true
	addGroups(root, a)
	return root
}

// noSubcommand refuses a word that is no command, with a suggestion.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return usagef("%s", text)
}

func addGroups(root *cobra.Command, a *app) {
	groups := []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"files", "From files to machines:", []*cobra.Command{
			newApply(a), newWatch(a), newPlan(a), newValidate(a), newRender(a), newExplain(a),
		}},
		{"look", "Look:", []*cobra.Command{newGet(a), newDescribe(a), newEvents(a), newLogs(a), newWait(a), newJobs(a)}},
		{"act", "Act on machines:", []*cobra.Command{
			newStart(a), newStop(a), newRestart(a), newPause(a), newResume(a), newHold(a), newRelease(a), newDelete(a),
		}},
		{"guest", "Talk to a guest and keep its past:", []*cobra.Command{
			newExec(a), newCopy(a), newConsole(a), newKeys(a), newType(a), newScreendump(a), newQMP(a),
			newSnapshot(a), newBackup(a), newImage(a), newDisk(a), newProvision(a),
		}},
		{"other", "Other:", []*cobra.Command{newSchema(a), newVersion(a), newCompletion()}},
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID("other")
	addHelpTopics(root)
}
