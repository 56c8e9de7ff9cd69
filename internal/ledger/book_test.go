package ledger_test

import (
	"testing"

	"tollgate/internal/ledger"
	"tollgate/internal/storetest"
)

func TestBookKeepsTheContract(t *testing.T) {
	storetest.Ledger(t, func(t *testing.T) ledger.Store {
		t.Helper()
		b := ledger.NewBook()
		t.Cleanup(func() { b.Close() })
		return b
	})
}
