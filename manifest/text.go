package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// bisectLimit is up to which size a syntax fault is searched for by reading
// again and again; beyond it the parser's own line has to do.
const bisectLimit = 256 << 10

// cleanText drops a UTF-8 byte order mark and refuses what no YAML reader takes
// as it is written: other encodings, bytes that are no UTF-8, control characters.
func cleanText(file string, text []byte) ([]byte, *Error) {
	for _, bom := range []string{"\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(text, []byte(bom)) {
			return nil, &Error{Position: Position{file, 1, 1}, Msg: "the file is UTF-16", Hint: "save it as UTF-8"}
		}
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	ascii := true
	for i, c := range text {
		if c >= utf8.RuneSelf {
			ascii = false
			continue
		}
		if (c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == 0x7f {
			return nil, &Error{
				Position: positionAt(file, text, i),
				Msg:      fmt.Sprintf("control character %U", rune(c)),
				Hint:     fmt.Sprintf("remove it; in a string write it as the escape \"\\u%04x\"", c),
			}
		}
	}
	if ascii {
		return text, nil
	}
	return text, checkUTF8(file, text)
}

// checkUTF8 refuses bytes that are no UTF-8, and line separators that YAML
// would fold into spaces although no editor shows them.
func checkUTF8(file string, text []byte) *Error {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &Error{Position: positionAt(file, text, i), Msg: fmt.Sprintf("byte 0x%02x is no UTF-8", text[i]), Hint: "save the file as UTF-8"}
		case r >= 0x80 && r < 0xa0, r == 0x2028, r == 0x2029, r == 0xfeff, r == 0xfffe, r == 0xffff:
			return &Error{
				Position: positionAt(file, text, i), Msg: fmt.Sprintf("invisible character %U", r),
				Hint: fmt.Sprintf("remove it; in a string write it as the escape \"\\u%04x\"", r),
			}
		}
		i += size
	}
	return nil
}

// positionAt is the position of the byte at offset.
func positionAt(file string, text []byte, offset int) Position {
	before := text[:offset]
	start := bytes.LastIndexByte(before, '\n') + 1
	return Position{file, bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1}
}

// parseDocuments gives the node tree of each document. At a syntax fault the
// documents before it are given too.
func parseDocuments(file string, text []byte) ([]*yaml.Node, *Error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var docs []*yaml.Node
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, syntaxFault(file, text, err)
		}
		docs = append(docs, &doc)
	}
}

// isJSON is true for a text that begins like JSON.
func isJSON(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{"))
}

// jsonEscape finds what JSON may escape in strings and the YAML parser may not:
// a slash, and characters beyond 16 bits as pairs.
var jsonEscape = newPattern(`\\(?:[^u/]|/|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u)`)

// plainJSON writes such escapes of a JSON text as the characters they stand for.
func plainJSON(text []byte) []byte {
	if !isJSON(text) || bytes.IndexByte(text, '\\') < 0 || !json.Valid(text) {
		return text
	}
	return jsonEscape.ReplaceAllFunc(text, func(escape []byte) []byte {
		if escape[1] != '/' && len(escape) < 12 {
			return escape
		}
		var s string
		if json.Unmarshal([]byte(`"`+string(escape)+`"`), &s) != nil {
			return escape
		}
		return []byte(s)
	})
}

var yamlLine = newPattern(`^yaml: (?:line (\d+): )?`)

// syntaxFault is what the parser said, at the line that is at fault. The parser
// itself names the beginning of the block around it, or nothing.
func syntaxFault(file string, text []byte, err error) *Error {
	line, msg := splitSyntaxError(err)
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(text) <= bisectLimit {
		if n := firstFailingLine(text, lines, msg); n > 0 {
			line = n
		}
	}
	line = min(max(line, 1), len(lines))
	at := lines[line-1]
	indent := len(at) - len(bytes.TrimLeft(at, " \t"))
	fault := &Error{Position: Position{file, line, indent + 1}, Msg: "not YAML: " + msg}
	switch {
	case bytes.IndexByte(at[:indent], '\t') >= 0 && !isJSON(text):
		fault.Position.Column = bytes.IndexByte(at, '\t') + 1
		fault.Hint = "a tab cannot indent YAML; use spaces"
	case strings.Contains(msg, "mapping values are not allowed"):
		fault.Hint = "quote a text that holds \": \", and check the indentation"
	case strings.Contains(msg, "invalid Unicode character escape"):
		fault.Hint = "write the character itself instead of two \\u escapes"
	case strings.Contains(msg, "unknown anchor"):
		fault.Hint = "an alias repeats an anchor of the same document, above it"
	default:
		fault.Hint = "check the indentation, quotes and brackets here and just above"
	}
	return fault
}

func splitSyntaxError(err error) (line int, msg string) {
	text := err.Error()
	m := yamlLine.FindStringSubmatch(text)
	if m == nil {
		return 0, text
	}
	line, err = strconv.Atoi(m[1])
	if err != nil {
		line = 0 // the parser named no line
	}
	return line, text[len(m[0]):]
}

// firstFailingLine is the least number of lines with which the text fails in
// the same way; 0 when that cannot be told.
func firstFailingLine(text []byte, lines [][]byte, msg string) int {
	fails := func(n int) bool {
		size := 0
		for _, l := range lines[:n] {
			size += len(l)
		}
		dec := yaml.NewDecoder(bytes.NewReader(text[:size]))
		for {
			var doc yaml.Node
			err := dec.Decode(&doc)
			if err == nil {
				continue
			}
			_, got := splitSyntaxError(err)
			return !errors.Is(err, io.EOF) && got == msg
		}
	}
	low, high := 0, len(lines) // fails(high) holds, fails(low) does not
	for high-low > 1 {
		if mid := (low + high) / 2; fails(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}
