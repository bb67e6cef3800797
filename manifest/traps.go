package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

var (
	wholeNumber = newPattern(`^-?(0|[1-9][0-9]*)$`)
	plainFloat  = newPattern(`^-?(0|[1-9][0-9]*)\.[0-9]+$`)
	// base60 is what YAML 1.1 reads as a number in sixties: 52:54:00:12:34:56.
	base60 = newPattern(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)
	// oldOctal and the like are numbers to YAML 1.1 or to YAML 1.2 only.
	oddNumber = newPattern(`^[-+]?(0[0-9_]+|0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*)$`)
)

// isPlain is true for a scalar without quotes, whose meaning YAML guesses.
func isPlain(n *yaml.Node) bool {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return n.Style&quoted == 0
}

// isOldBool is true for the words that only YAML 1.1 reads as true or false.
func isOldBool(s string) bool {
	switch s {
	case "on", "On", "ON", "off", "Off", "OFF", "yes", "Yes", "YES", "no", "No", "NO", "y", "Y", "n", "N":
		return true
	default:
		return false
	}
}

// textTrap says why a plain scalar is no string, or not to every YAML reader.
// It is "" where it is one to all.
func textTrap(n *yaml.Node) string {
	if !isPlain(n) {
		return ""
	}
	v := shorten(n.Value)
	switch {
	case n.Tag == "!!bool":
		return v + " is a boolean"
	case isOldBool(n.Value):
		return v + " is a boolean to YAML 1.1 and a string to YAML 1.2"
	case n.Tag == "!!null":
		return "is null"
	case n.Tag == "!!timestamp":
		return v + " is a date"
	case n.Tag == "!!int" || n.Tag == "!!float":
		return v + " is a number"
	case base60.MatchString(n.Value):
		return v + " is a number (in sixties) to YAML 1.1 and a string to YAML 1.2"
	case oddNumber.MatchString(n.Value):
		return v + " is a number to some YAML readers"
	default:
		return ""
	}
}

// scalar reads a value that is neither mapping nor list.
func (w *walker) scalar(n *yaml.Node, s *shape) bool {
	if n.Kind != yaml.ScalarNode {
		w.mismatch(n, s)
		return false
	}
	//nolint:exhaustive // the other forms never come here.
	switch s.kind {
	case shapeText:
		return w.text(n, s)
	case shapeNumber:
		return w.number(n)
	case shapeBool:
		return w.boolean(n)
	case shapeQuantity:
		return w.quantity(n)
	case shapeDuration:
		return w.duration(n)
	default:
		return w.property(n)
	}
}

// text reads a string.
func (w *walker) text(n *yaml.Node, s *shape) bool {
	if s.enum != nil {
		return w.enum(n, s)
	}
	if why := textTrap(n); why != "" {
		w.fault(n, "must be a string: "+why, "quote it: "+quote(n.Value))
		return false
	}
	if n.Value == "" && !s.mayBeEmpty {
		w.fault(n, "must not be empty", "give it a value, or remove the key")
		return false
	}
	if !w.lacks(n, s.freeText) {
		return false
	}
	w.out = appendJSONString(w.out, n.Value)
	return true
}

// lacks refuses characters that would not reach QEMU, or its log and screen, as
// they are. Free text, which goes nowhere, only lacks the line breaks that YAML
// writers do not keep.
func (w *walker) lacks(n *yaml.Node, free bool) bool {
	for _, r := range n.Value {
		if isForeignBreak(r) || (!free && unicode.IsControl(r)) {
			w.fault(n, fmt.Sprintf("holds the control character %U", r), "remove it, or write a space")
			return false
		}
	}
	return true
}

// isForeignBreak is true for line breaks that only some YAML readers know.
func isForeignBreak(r rune) bool { return r == 0x85 || r == 0x2028 || r == 0x2029 }

// enum reads one of a few words.
func (w *walker) enum(n *yaml.Node, s *shape) bool {
	allowed := quoteAll(s.enum.allowed)
	for _, v := range s.enum.allowed {
		if n.Value != v {
			continue
		}
		if why := textTrap(n); why != "" {
			w.fault(n, "must be a string: "+why, "quote it: "+quote(v))
			return false
		}
		w.out = appendJSONString(w.out, v)
		return true
	}
	for _, v := range s.enum.notYet {
		if n.Value == v {
			w.fault(n, quote(v)+" is not yet supported", "use "+allowed)
			return false
		}
	}
	hint := "use " + allowed
	if guess := nearest(n.Value, s.enum.allowed); guess != "" {
		hint = fmt.Sprintf("did you mean %q?", guess)
	}
	w.fault(n, quote(n.Value)+" is not allowed", hint)
	return false
}

// number reads a whole number, written as people write it.
func (w *walker) number(n *yaml.Node) bool {
	i, err := strconv.ParseInt(n.Value, 10, 32)
	switch {
	case !isPlain(n) && wholeNumber.MatchString(n.Value):
		w.fault(n, "must be a whole number, not a string", "remove the quotes")
	case n.Tag == "!!int" && !wholeNumber.MatchString(n.Value):
		w.fault(n, shorten(n.Value)+" is read differently by different YAML readers", "write a whole number in plain digits")
	case !isPlain(n) || !wholeNumber.MatchString(n.Value):
		w.fault(n, "must be a whole number, not "+describe(n), "")
	case err != nil:
		w.fault(n, shorten(n.Value)+" is out of range", "")
	default:
		w.out = strconv.AppendInt(w.out, i, 10)
		return true
	}
	return false
}

// boolean reads true or false.
func (w *walker) boolean(n *yaml.Node) bool {
	switch {
	case n.Tag == "!!bool" && isPlain(n):
		w.out = strconv.AppendBool(w.out, strings.EqualFold(n.Value, "true"))
		return true
	case !isPlain(n) && (n.Value == "true" || n.Value == "false"):
		w.fault(n, "must be true or false, not a string", "remove the quotes")
	case isOldBool(n.Value):
		w.fault(n, "must be true or false, not "+n.Value, "write true or false")
	default:
		w.fault(n, "must be true or false, not "+describe(n), "")
	}
	return false
}

// quantity reads a size: a number with a suffix, or of bytes.
func (w *walker) quantity(n *yaml.Node) bool {
	q, err := parseQuantity(n.Value)
	if err != nil {
		w.fault(n, err.Error(), quantityHint(n.Value))
		return false
	}
	if q == 0 {
		w.fault(n, "must be more than 0", "give it a size, or remove the key")
		return false
	}
	w.out = appendJSONString(w.out, q.String())
	return true
}

// duration reads a span of time: a string with a unit.
func (w *walker) duration(n *yaml.Node) bool {
	if isPlain(n) && n.Tag != "!!str" {
		w.fault(n, "must be a string with a unit, not "+describe(n), `write for example "60s"`)
		return false
	}
	d, err := time.ParseDuration(n.Value)
	switch {
	case err != nil:
		w.fault(n, quote(n.Value)+" is no duration", `use a number with a unit, such as "60s" or "5m"`)
	case d <= 0:
		w.fault(n, quote(n.Value)+" is not more than 0", `use a duration such as "60s", or remove the key`)
	default:
		w.out = appendJSONString(w.out, d.String())
		return true
	}
	return false
}

// property reads a string, number or boolean of a properties map.
func (w *walker) property(n *yaml.Node) bool {
	switch {
	case !isPlain(n):
		if !w.lacks(n, false) {
			return false
		}
		w.out = appendJSONString(w.out, n.Value)
		return true
	case n.Tag == "!!bool":
		return w.boolean(n)
	case isOldBool(n.Value):
		w.fault(n, shorten(n.Value)+" is a boolean to YAML 1.1 and a string to YAML 1.2", fmt.Sprintf("write true or false, or quote it: %q", n.Value))
		return false
	case n.Tag == "!!int" && wholeNumber.MatchString(n.Value):
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil {
			w.fault(n, shorten(n.Value)+" is out of the range of numbers", "quote it, and QEMU reads it")
			return false
		}
		w.out = strconv.AppendInt(w.out, i, 10)
		return true
	case n.Tag == "!!float" && plainFloat.MatchString(n.Value):
		return w.decimal(n)
	}
	if why := textTrap(n); why != "" {
		w.fault(n, "must be a string, a plain number, true or false: "+why, "quote it where a string is meant: "+quote(n.Value))
		return false
	}
	if !w.lacks(n, false) {
		return false
	}
	w.out = appendJSONString(w.out, n.Value)
	return true
}

// decimal reads a number with a fraction, if it can be written back in the same
// form: without an exponent, which QEMU does not read.
func (w *walker) decimal(n *yaml.Node) bool {
	f, err := strconv.ParseFloat(n.Value, 64)
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if err != nil || len(n.Value) > 17 || strings.ContainsRune(text, 'e') {
		w.fault(n, shorten(n.Value)+" has more digits than a number keeps", "quote it, and QEMU reads it")
		return false
	}
	w.out = append(w.out, text...)
	return true
}

// quoteAll is "a", "b" or "c".
func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = strconv.Quote(word)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}
