package manifest

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// nearest is the candidate most like word, or "" when none is near enough to
// be meant.
func nearest(word string, candidates []string) string {
	if len(word) > 2*maxName {
		return ""
	}
	best, bestDistance := "", 4
	switch {
	case len(word) < 4:
		bestDistance = 2
	case len(word) < 12:
		bestDistance = 3
	}
	for _, c := range candidates {
		if strings.EqualFold(c, word) {
			return c
		}
		if d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(c), nil); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// didYouMean is the hint that names the nearest candidate, or "".
func didYouMean(word string, candidates []string) string {
	if n := nearest(word, candidates); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return ""
}
