// Package whole reads whole numbers as JSON may write them: 1024, 1024.0 and
// 1.024e3 are the same number.
package whole

import (
	"bytes"
	"math"
	"strconv"
)

// Number reads a number that is well-formed JSON. ok is false for a number with a
// fraction other than zero. A value of 10^18 and more comes as the largest int64, or
// its negative.
func Number(number []byte) (v int64, ok bool) {
	digits, negative := bytes.CutPrefix(number, []byte("-"))
	exponent := 0
	if i := bytes.IndexAny(digits, "eE"); i >= 0 {
		var err error
		if exponent, err = strconv.Atoi(string(digits[i+1:])); err != nil {
			exponent = math.MaxInt32
			if bytes.HasPrefix(digits[i+1:], []byte("-")) {
				exponent = math.MinInt32
			}
		}
		digits = digits[:i]
	}
	before, behind, _ := bytes.Cut(digits, []byte("."))
	all := bytes.TrimLeft(append(bytes.Clone(before), behind...), "0")
	if len(all) == 0 {
		return 0, true
	}
	// point is the number of digits before the decimal point.
	point := len(all) - len(behind) + exponent
	kept := bytes.TrimRight(all, "0")
	switch {
	case len(kept) > point:
		return 0, false
	case point > 18:
		v = math.MaxInt64
	default:
		for i := range point {
			v *= 10
			if i < len(all) {
				v += int64(all[i] - '0')
			}
		}
	}
	if negative {
		v = -v
	}
	return v, true
}
