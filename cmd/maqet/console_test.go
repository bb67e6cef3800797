package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func TestParseEscape_keysAndWhatIsNone(t *testing.T) {
	for key, want := range map[string]byte{"ctrl-]": 0x1d, "^]": 0x1d, "Ctrl-A": 0x01, "^_": 0x1f, `ctrl-\`: 0x1c, "none": 0} {
		if got, err := parseEscape(key); err != nil || got != want {
			t.Errorf("%s is %#x, %v; want %#x", key, got, err, want)
		}
	}
	for _, key := range []string{"", "a", "ctrl-", "ctrl-ab", "ctrl-1", "^", "alt-a"} {
		if _, err := parseEscape(key); err == nil {
			t.Errorf("%q is taken for a key", key)
		}
	}
}

func TestExpectation_overWritesAndWindows(t *testing.T) {
	for _, tc := range []struct {
		what, re string
		writes   []string
		met      bool
	}{
		{"in one write", "login:", []string{"web login: "}, true},
		{"over two writes", "login:", []string{"web lo", "gin: "}, true},
		{"not there", "login:", []string{"web", "logi"}, false},
		{"too far apart", "(?s)a.*b", []string{"a" + strings.Repeat(" ", consoleWindow), "b"}, false},
		{"after much else", "the end", []string{strings.Repeat("x", 3*consoleWindow), "the ", "end"}, true},
	} {
		met, shown := 0, new(bytes.Buffer)
		e := &expectation{to: shown, re: regexp.MustCompile(tc.re), met: func() { met++ }}
		for _, text := range tc.writes {
			if n, err := e.Write([]byte(text)); n != len(text) || err != nil {
				t.Errorf("%s: %d written, %v", tc.what, n, err)
			}
		}
		if (met > 0) != tc.met || shown.String() != strings.Join(tc.writes, "") {
			t.Errorf("%s: met %d times, and %d bytes shown", tc.what, met, shown.Len())
		}
	}
}

func TestTypeKeys_endsAtTheEscapeKey(t *testing.T) {
	for _, tc := range []struct {
		typed, sent string
		s           sitting
	}{
		{"ab\x1dcd", "ab", sitting{escape: 0x1d}},
		{"a\x03b\x1d", "a\x03b", sitting{escape: 0x1d}},
		{"a\x1db", "a\x1db", sitting{}}, // until the terminal is gone
		{"a\x03b", "a", sitting{looks: true}},
	} {
		sent := new(bytes.Buffer)
		if err := typeKeys(sent, strings.NewReader(tc.typed), tc.s); err != errLeft || sent.String() != tc.sent { //nolint:errorlint // the very error
			t.Errorf("%q sends %q, %v; want %q", tc.typed, sent, err, tc.sent)
		}
	}
}
