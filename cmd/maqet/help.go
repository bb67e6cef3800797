package main

import (
	"fmt"
	"slices"
	"strings"

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
	var text strings.Builder
	text.WriteString("Every wait has a limit. --timeouts NAME=DURATION,... changes it; a manifest key\nwins where there is one. The names and their defaults:\n\n")
	for _, d := range table.All() {
		fmt.Fprintf(&text, "  %-15s%s\n", d.Name, d.Value)
	}
	return text.String()
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
