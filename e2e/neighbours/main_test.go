// Package neighbours_test holds one promise: what one client does, with a key or
// without, does not hurt another. Each attack is something that was seen to do so.
package neighbours_test

import (
	"testing"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}
