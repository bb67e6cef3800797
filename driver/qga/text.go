package qga

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean is a text of the guest's that can be shown on a terminal: of at most limit
// bytes, without the control and format characters that terminals obey.
func Clean(text string, limit int) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || r == '\t':
			r = ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
