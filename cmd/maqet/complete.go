package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// completionBudget bounds what a person waits after pressing Tab.
const completionBudget = time.Second

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion {bash|zsh|fish|powershell}",
		Short: "Print a completion script for a shell",
		Long: `Print a completion script for a shell. With it, Tab completes commands, flags
and the names of machines and snapshots.`,
		Example: `  source <(maqet completion bash)
  maqet completion zsh > "${fpath[1]}/_maqet"
  maqet completion fish > ~/.config/fish/completions/maqet.fish`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      exactArgs("SHELL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			default:
				return usagef("completion %s: the shells are bash, zsh, fish and powershell", args[0])
			}
		},
	}
}

// completeMachines completes names of machines; at most max of them, 0 for any number.
func completeMachines(a *app, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return remembered(cmd.Context(), a, func(tx *state.Tx) ([]string, error) {
			machines, err := tx.Machines()
			var names []string
			for _, m := range machines {
				names = append(names, m.Object.Metadata.Name)
			}
			return names, err
		}, args, prefix)
	}
}

// completeSnapshots completes a machine, then one of its snapshots: those that
// objects name, and those that were taken by command.
func completeSnapshots(a *app) cobra.CompletionFunc {
	machines := completeMachines(a, 1)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return machines(cmd, args, prefix)
		}
		vm, err := machineName(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return remembered(cmd.Context(), a, func(tx *state.Tx) ([]string, error) {
			objects, err := tx.SnapshotsOf(vm)
			names := takenSnapshots(a, vm)
			for _, s := range objects {
				names = append(names, s.Object.Metadata.Name)
			}
			return unique(names), err
		}, nil, prefix)
	}
}

// takenSnapshots are the snapshots that a record lies beside the disks for.
func takenSnapshots(a *app, vm string) []string {
	entries, err := os.ReadDir(a.built.layout.SnapshotDir(vm))
	if err != nil {
		return nil // a machine without snapshots has no such folder
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names
}

// completeImages completes names of Image objects.
func completeImages(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return remembered(cmd.Context(), a, func(tx *state.Tx) ([]string, error) {
			images, err := tx.Images()
			var names []string
			for _, i := range images {
				names = append(names, i.Object.Metadata.Name)
			}
			return names, err
		}, args, prefix)
	}
}

// completeGet completes the kinds and machines, or behind a kind its objects.
func completeGet(a *app) cobra.CompletionFunc {
	machines := completeMachines(a, 0)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && kindOf(args[0]) == manifest.KindSnapshot {
			return remembered(cmd.Context(), a, func(tx *state.Tx) ([]string, error) {
				objects, err := tx.Snapshots()
				var names []string
				for _, s := range objects {
					names = append(names, s.Object.Metadata.Name)
				}
				return names, err
			}, args[1:], prefix)
		}
		if len(args) > 0 && kindOf(args[0]) == manifest.KindImage {
			return completeImages(a)(cmd, args[1:], prefix)
		}
		names, directive := machines(cmd, args, prefix)
		if len(args) > 0 {
			return names, directive
		}
		for _, kind := range []string{"img", "snap", "vm"} {
			if strings.HasPrefix(kind, prefix) {
				names = append(names, kind)
			}
		}
		return names, directive
	}
}

// remembered reads names from the database; any trouble completes nothing.
func remembered(ctx context.Context, a *app, list func(*state.Tx) ([]string, error), used []string, prefix string) ([]string, cobra.ShellCompDirective) {
	r, err := a.rooms()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(ctx, completionBudget)
	defer cancel()
	var names []string
	err = r.store.View(ctx, func(tx *state.Tx) error {
		var listErr error
		names, listErr = list(tx)
		return listErr
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
	}
	var fit []string
	for _, n := range names {
		if strings.HasPrefix(n, prefix) && !slices.Contains(used, n) {
			fit = append(fit, n)
		}
	}
	return fit, cobra.ShellCompDirectiveNoFileComp
}

// noArgs, exactArgs and someMachines are cobra's checks with our error type and
// words that name what is missing.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument, but got %q", cmd.CommandPath(), args[0])
	}
	return nil
}

func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s needs %s", cmd.CommandPath(), strings.Join(names[len(args):], " and "))
		}
		if len(args) > len(names) {
			return usagef("%s got one argument too many: %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

func someMachines(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("%s needs at least one machine", cmd.CommandPath())
	}
	return nil
}

// describeCount is "1 machine" or "3 machines".
func describeCount(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
