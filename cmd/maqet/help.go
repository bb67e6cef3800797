package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/internal/timing"
)

// addHelpTopics adds the texts of "maqet help TOPIC".
func addHelpTopics(root *cobra.Command) {
	root.AddCommand(
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp},
		&cobra.Command{Use: "timeouts", Short: "The waits that --timeouts changes", Long: timeoutsHelp()},
	)
}

func timeoutsHelp() string {
	table := timing.Default()
	text := "Every wait has a limit. --timeouts NAME=DURATION,... changes it; a manifest key\nwins where there is one. The names and their defaults:\n\n"
	for _, d := range table.All() {
		text += "  " + pad(d.Name, 10) + d.Value.String() + "\n"
	}
	return text
}

func pad(s string, width int) string {
	for len(s) < width {
		s += " "
	}
	return s
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
