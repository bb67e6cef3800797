package manifest

import (
	"fmt"
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
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || digits == "" || digits[0] == '+' {
		return 0, fmt.Errorf("%q is no size: use a whole number with a suffix such as 512Mi or 20Gi", text)
	}
	hi, lo := bits.Mul64(n, factor)
	if hi != 0 || lo > 1<<63-1 {
		return 0, fmt.Errorf("%q is larger than a size can be (8 EiB)", text)
	}
	return Quantity(lo), nil
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
