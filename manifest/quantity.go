package manifest

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// quantityUnits are tried longest suffix first when reading.
var quantityUnits = []struct {
	suffix string
	factor uint64
}{
	{"Ki", 1 << 10},
	{"Mi", 1 << 20},
	{"Gi", 1 << 30},
	{"Ti", 1 << 40},
	{"Pi", 1 << 50},
	{"k", 1e3},
	{"M", 1e6},
	{"G", 1e9},
	{"T", 1e12},
	{"P", 1e15},
}

func parseQuantity(text string) (Quantity, error) {
	digits, factor := text, uint64(1)
	for _, u := range quantityUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			digits, factor = rest, u.factor
			break
		}
	}
	if !isPlainDigits(digits) {
		return 0, fmt.Errorf("%s is no size: use a whole number with a suffix such as 512Mi or 20Gi", quote(text))
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	hi, lo := bits.Mul64(n, factor)
	if err != nil || hi != 0 || lo > 1<<63-1 {
		return 0, fmt.Errorf("%s is larger than a size can be (8 EiB)", quote(text))
	}
	return Quantity(lo), nil
}

// isPlainDigits is true for a decimal number that no YAML reader takes for
// anything else: no sign, no leading zero, no underscore.
func isPlainDigits(s string) bool {
	if s == "" || (s[0] == '0' && s != "0") {
		return false
	}
	return strings.Trim(s, "0123456789") == ""
}

// looseQuantity is what people write for sizes elsewhere.
var looseQuantity = newPattern(`^([0-9]+)(\.[0-9]+)? ?([a-zA-Z]*)$`)

var exponent = newPattern(`^[0-9.]+[eE][-+]?[0-9]+$`)

// quantityHint is what to write instead of text, as far as that can be told.
func quantityHint(text string) string {
	if exponent.MatchString(text) {
		return "exponents are not read; write the number out"
	}
	m := looseQuantity.FindStringSubmatch(text)
	if m == nil || len(text) > maxName {
		return ""
	}
	whole, fraction, unit := m[1], m[2], strings.ToLower(m[3])
	letter := strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	at := strings.Index("kmgtp", letter)
	if letter != "" && (len(letter) > 1 || at < 0) {
		return ""
	}
	switch {
	case len(whole) > 15:
		return "" // too large, however it is written
	case !isPlainDigits(whole):
		return "write it in plain digits, without leading zeros"
	case fraction != "":
		return fractionHint(whole+fraction, letter, at)
	case unit == "m":
		return fmt.Sprintf("m means a thousandth elsewhere; did you mean %sMi?", whole)
	case letter == "":
		return "write the number of bytes, or a suffix"
	}
	guess := whole + strings.ToUpper(letter) + "i"
	if _, err := parseQuantity(guess); err != nil {
		return ""
	}
	return "did you mean " + guess + "?"
}

// fractionHint writes a size with a fraction in the next smaller unit, where it
// is whole there.
func fractionHint(number, letter string, at int) string {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || letter == "" || at == 0 || f > 1<<20 {
		return ""
	}
	if smaller := f * 1024; smaller == math.Trunc(smaller) {
		return fmt.Sprintf("write %.0f%s", smaller, quantityUnits[at-1].suffix)
	}
	return ""
}

// nearestMultiples are the sizes just below and above q that step divides.
func nearestMultiples(q, step Quantity) string {
	below := q / step * step
	if below == 0 || below > 1<<63-1-step {
		return fmt.Sprintf("use %s", max(below, step))
	}
	return fmt.Sprintf("use %s or %s", below, below+step)
}

func formatQuantity(q Quantity) string {
	for i := 4; i >= 0; i-- {
		u := quantityUnits[i]
		if q > 0 && uint64(q)%u.factor == 0 {
			return strconv.FormatUint(uint64(q)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(q), 10)
}
