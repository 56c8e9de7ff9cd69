// Package handover_test breaks what stands around the meter inside Envoy: tollgate is
// killed, stopped, hung and replaced, Envoy is killed, both are, records are lost and
// the library is missing. Streams go on where they can, and every row is what the
// engine made. The default is a short form; PROOF=1 runs the full one.
package handover_test

import (
	"os"
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
