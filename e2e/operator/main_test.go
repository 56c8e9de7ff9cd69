// Package operator_test holds what an operator relies on through a real Envoy: who a
// request is put down to, an API that is as its document says, changes that are all on
// record, and commands with manuals.
package operator_test

import (
	"testing"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}
