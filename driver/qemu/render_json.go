package qemu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// member is one key of an object and its value: a string, bool, int64, float64,
// a list, or an object.
type member struct {
	key   string
	value any
}

// object is a JSON object whose keys keep their order, so that command lines
// read well and are the same each time. It is the one form of a device, block
// node or netdev, for the command line and for QMP.
type object []member

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := writeValue(&b, m.key); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := writeValue(&b, m.value); err != nil {
			return nil, fmt.Errorf("%s: %w", m.key, err)
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// writeValue writes one value. Characters that only HTML minds stay as they are.
func writeValue(b *bytes.Buffer, v any) error {
	if s, ok := v.(string); ok {
		if err := checkText(s); err != nil {
			return err
		}
	}
	if v == nil {
		return errors.New("has no value")
	}
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // Encode ends with a newline.
	return nil
}

// encode writes the object as one word of a command line.
func (o object) encode() (string, error) {
	b, err := o.MarshalJSON()
	return string(b), err
}

// checkText refuses text that would not reach QEMU as it is. NUL ends a word of
// a command line. Bytes that are not UTF-8 cannot be written as JSON, neither
// here nor in the launch record. Unicode's noncharacters are refused by QEMU's
// JSON reader.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("%q is not UTF-8, which QEMU's options must be", s)
	}
	for _, r := range s {
		if r == 0 {
			return fmt.Errorf("%q holds a NUL character, which ends a word of a command line", s)
		}
		if r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return fmt.Errorf("%q holds U+%04X, which Unicode reserves and QEMU refuses", s, r)
		}
	}
	return nil
}

// doubleCommas writes a value for an option without a JSON form, where a comma
// begins the next key.
func doubleCommas(s string) string { return strings.ReplaceAll(s, ",", ",,") }
