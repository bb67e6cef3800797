package manifest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Quantity is a number of bytes. Its text form has an optional suffix: binary
// (Ki Mi Gi Ti Pi) or decimal (k M G T P). Zero means absent.
type Quantity int64

// Duration is a span of time; its text form has a unit ("90s", "5m"). Zero means absent.
type Duration time.Duration

// Scalar is a string, an int64, a float64 or a bool of a properties map.
type Scalar struct{ v any }

// ScalarOf wraps a string, int64, int, float64 or bool.
func ScalarOf(v any) Scalar {
	if i, ok := v.(int); ok {
		v = int64(i)
	}
	return Scalar{v}
}

// Value is the wrapped string, int64, float64 or bool.
func (s Scalar) Value() any { return s.v }

// String is the value as text: true and false become on and off, as QEMU's
// option syntax wants.
func (s Scalar) String() string {
	switch v := s.v.(type) {
	case bool:
		if v {
			return "on"
		}
		return "off"
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	default:
		return ""
	}
}

// MarshalJSON writes the plain value.
func (s Scalar) MarshalJSON() ([]byte, error) { return json.Marshal(s.v) }

// UnmarshalJSON reads a string, number or boolean; whole numbers become int64.
func (s *Scalar) UnmarshalJSON(b []byte) error {
	if i, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		s.v = i
		return nil
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v.(type) {
	case string, float64, bool:
		s.v = v
		return nil
	default:
		return fmt.Errorf("%s is not a string, number or boolean", b)
	}
}

// ParseQuantity reads a number of bytes with an optional suffix.
func ParseQuantity(text string) (Quantity, error) { return parseQuantity(text) }

// String is the shortest exact text: 512Mi rather than 536870912.
func (q Quantity) String() string { return formatQuantity(q) }

// Bytes is the number of bytes.
func (q Quantity) Bytes() int64 { return int64(q) }

// MarshalJSON writes the text form.
func (q Quantity) MarshalJSON() ([]byte, error) { return json.Marshal(q.String()) }

// UnmarshalJSON reads the text form or a whole number of bytes.
func (q *Quantity) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	v, err := parseQuantity(text)
	if err != nil {
		return err
	}
	*q = v
	return nil
}

// Or is the duration, or def when absent.
func (d Duration) Or(def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}

// String is the text form.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the text form.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a string with a unit.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("a duration is a string with a unit such as \"60s\": %w", err)
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is no duration: use a number with a unit such as \"60s\" or \"5m\"", text)
	}
	if v < 0 {
		return fmt.Errorf("%q is negative", text)
	}
	*d = Duration(v)
	return nil
}
