package qemu

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// suggest is a hint that names the candidate most like word, or otherwise.
func suggest(word string, candidates []string, otherwise string) string {
	best, distance := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		if d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(c), nil); d < distance {
			best, distance = c, d
		}
	}
	if best == "" {
		return otherwise
	}
	return fmt.Sprintf("did you mean %q?", best)
}
