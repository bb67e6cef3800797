package qmp

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzCheckText checks that JSON which passes holds only characters that QEMU
// takes, read back by a parser that is not ours, and that nothing is worse than
// an error.
func FuzzCheckText(f *testing.F) {
	for _, s := range []string{
		`"a"`, `"\ufffd"`, `"\\ufffd"`, `"\ud83d\udc27"`, `"\ud83d"`, "\"\xff\"", `"\u00`, `\`, `\\u0000`, "\"\uffff\"", `"\udbff\udfff"`, `"\ufdd0"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkText(b) != nil || !json.Valid(b) {
			return
		}
		// A string in which nothing was replaced decodes to as many U+FFFD as it
		// shows: anything more was half a pair or no UTF-8.
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			return // a number too large for a float64, for instance
		}
		text, isText := v.(string)
		if !isText {
			return
		}
		if strings.ContainsAny(text, "\x00\uffff\ufffe\ufdd0\U0010ffff") || !utf8.ValidString(text) {
			t.Errorf("%q passed", b)
		}
		if got, want := strings.Count(text, "\ufffd"), strings.Count(string(b), "\ufffd"); got != want {
			t.Errorf("%q passed with %d replaced characters", b, got-want)
		}
	})
}
