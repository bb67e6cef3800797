package qmp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// errNotText says that a command holds bytes that are no text.
var errNotText = errors.New("the command holds bytes that are not UTF-8, which JSON cannot carry")

// checkText refuses a JSON text that QEMU would not read as it was meant. QEMU
// answers characters it does not like with a parse error that does not say whose
// command it was, and reads on in the middle; so they must not be sent at all.
func checkText(b []byte) error {
	if !utf8.Valid(b) {
		return errNotText
	}
	for i := 0; i < len(b); {
		r, size := rune(b[i]), 1
		escaped := false
		switch {
		case b[i] == '\\' && bytes.HasPrefix(b[i:], []byte(`\u`)):
			r, size = unescape(b[i:])
			escaped = true
		case b[i] == '\\':
			size = 2 // the escaped character cannot begin another escape
		case b[i] >= utf8.RuneSelf:
			r, size = utf8.DecodeRune(b[i:])
		}
		if err := checkRune(r, escaped); err != nil {
			return err
		}
		i += size
	}
	return nil
}

// checkRune judges one character.
func checkRune(r rune, escaped bool) error {
	switch {
	case r == 0:
		return errors.New("the command holds a NUL character, which QEMU turns into other bytes")
	case r == utf8.RuneError && escaped:
		// encoding/json writes this escape for bytes that are not UTF-8, while a
		// real U+FFFD stays as it is.
		return errNotText
	case utf16.IsSurrogate(r):
		return fmt.Errorf("the command holds half a surrogate pair, U+%04X, which is no character", r)
	case r&0xfffe == 0xfffe, r >= 0xfdd0 && r <= 0xfdef:
		return fmt.Errorf("the command holds U+%04X, which Unicode reserves and QEMU refuses", r)
	default:
		return nil
	}
}

// unescape returns the character of the \u escape, or pair of them, that b begins
// with, and its length.
func unescape(b []byte) (rune, int) {
	const size = len(`\uXXXX`)
	r, ok := hex4(b)
	if !ok {
		return utf8.RuneError, len(b)
	}
	if low, paired := hex4(b[size:]); paired && utf16.IsSurrogate(r) {
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, 2 * size
		}
	}
	return r, size
}

// hex4 reads one \uXXXX.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}
