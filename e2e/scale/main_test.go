//go:build scale

package scale_test

import (
	"os"
	"testing"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// alone skips a test of a control plane that listens on all addresses, unless it runs in
// a network namespace of its own.
func alone(t *testing.T) {
	t.Helper()
	if os.Getenv("TOLLGATE_NETNS") == "" {
		t.Skip("needs a network namespace of its own: make scale")
	}
}
