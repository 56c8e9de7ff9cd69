package whole_test

import (
	"math"
	"math/big"
	"regexp"
	"testing"

	"tollgate/internal/whole"
)

// numbers is the grammar of RFC 8259, with exponents that exact arithmetic can do.
var numbers = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?$`)

func TestWholeNumbers(t *testing.T) {
	for number, want := range map[string]int64{
		"0": 0, "-0": 0, "0.0": 0, "0e9": 0, "0E-9": 0, "7": 7, "-7": -7, "1024.0": 1024, "1024.000": 1024,
		"1e3": 1000, "1E+3": 1000, "1.5e1": 15, "-2.50e2": -250, "1000e-3": 1, "10.0e-1": 1, "123.456e3": 123456,
		"0.001e3": 1, "1e18": math.MaxInt64, "99999999999999999999": math.MaxInt64, "-1e300": -math.MaxInt64,
		"100000000000000000":     100000000000000000,
		"0e99999999999999999999": 0, "1e99999999999999999999": math.MaxInt64,
	} {
		if got, ok := whole.Number([]byte(number)); !ok || got != want {
			t.Errorf("%s: got %d, %v, want %d", number, got, ok, want)
		}
	}
	for _, number := range []string{"1.5", "0.1", "1e-1", "15e-1", "1.0001e3", "-0.5", "1e-300", "1e-99999999999999999999"} {
		if got, ok := whole.Number([]byte(number)); ok {
			t.Errorf("%s: got %d, it is not whole", number, got)
		}
	}
}

// FuzzNumber holds the reading of a number against exact arithmetic.
func FuzzNumber(f *testing.F) {
	for _, seed := range []string{"1024.0", "1e3", "-0.0", "15e-1", "1e308", "0.000000000000000000001e21", "9223372036854775807", "1E-5", "12345678901234567890.50e-1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, number []byte) {
		if len(number) > 400 || !numbers.Match(number) {
			return
		}
		got, ok := whole.Number(number)
		want, parsed := new(big.Rat).SetString(string(number))
		if !parsed {
			t.Fatalf("%q is no number", number)
		}
		if ok != want.IsInt() {
			t.Fatalf("%s: whole is %v", number, ok)
		}
		if limit := big.NewInt(1e18); ok && want.Num().CmpAbs(limit) < 0 && got != want.Num().Int64() {
			t.Fatalf("%s: got %d, want %s", number, got, want)
		}
	})
}
