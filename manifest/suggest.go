package manifest

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// nearest is the candidate most like word, or "" when none is near enough to
// be meant.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", 1+max(1, len(word)/3)
	if len(word) > 2*maxName {
		return ""
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
