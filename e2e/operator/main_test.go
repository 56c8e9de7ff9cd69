// Package operator_test holds what an operator relies on through a real Envoy: who a
// request is put down to, an API that is as its document says, changes that are all on
// record, and commands with manuals.
//
// PROOF=1 runs the long forms.
package operator_test

import (
	"os"
	"testing"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// long tells that the long forms are wanted.
func long() bool { return os.Getenv("PROOF") != "" }
