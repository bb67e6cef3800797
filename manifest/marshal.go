package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// MarshalYAML writes an object, or anything with JSON tags, as YAML that Load
// reads back to the same values. Keys are sorted.
func MarshalYAML(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	text, err = yaml.JSONToYAML(escapeUnprintable(text))
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return text, nil
}

// escapeUnprintable writes the characters of JSON strings that YAML does not
// take as they are, such as DEL, as escapes. They occur only within strings.
func escapeUnprintable(text []byte) []byte {
	if bytes.IndexFunc(text, isUnprintable) < 0 {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		if isUnprintable(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// isUnprintable is true for characters YAML wants escaped, beyond those that
// JSON escapes itself.
func isUnprintable(r rune) bool {
	return (r >= 0x7f && r < 0xa0) || r == 0xfeff || r == 0xfffe || r == 0xffff
}

// MarshalJSON writes an object, or anything with JSON tags, as indented JSON
// that Load reads back to the same values, with a newline at its end.
func MarshalJSON(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return append(text, '\n'), nil
}
