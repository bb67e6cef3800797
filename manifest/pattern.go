package manifest

import (
	"regexp"
	"sync"
)

// pattern is a regular expression that is compiled when it is first used: every
// command of maqet would pay for all of them otherwise, and most use few or none.
type pattern struct {
	compiled func() *regexp.Regexp
}

// newPattern is the pattern of an expression, which must be sound.
func newPattern(expr string) pattern {
	return pattern{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })}
}

// MatchString tells whether the text holds a match.
func (p pattern) MatchString(text string) bool { return p.compiled().MatchString(text) }

// FindStringSubmatch is the first match and what its groups hold; nil without one.
func (p pattern) FindStringSubmatch(text string) []string {
	return p.compiled().FindStringSubmatch(text)
}

// ReplaceAllFunc is the text with each match replaced.
func (p pattern) ReplaceAllFunc(text []byte, by func([]byte) []byte) []byte {
	return p.compiled().ReplaceAllFunc(text, by)
}
