// Package handover_test breaks what stands around the meter inside Envoy: tollgate is
// killed, stopped, hung and replaced, Envoy is killed, both are, records are lost and
// the library is missing. Streams go on where they can, and every row is what the
// engine made. The default is a short form; PROOF=1 runs the full one, with
// PROOF_ROUNDS and PROOF_REQUESTS less of it.
package handover_test

import (
	"os"
	"strconv"
	"testing"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run() // its status becomes the program's
	stack.Clean()
}

func proof() bool { return os.Getenv("PROOF") == "1" }

// times is how often something is done in the short and in the full form.
func times(short, full int) int {
	if proof() {
		return full
	}
	return short
}

// asMany is times, and in the full form what the variable says.
func asMany(variable string, short, full int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && proof() {
		return n
	}
	return times(short, full)
}
