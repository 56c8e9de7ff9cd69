package redisstore_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
	"tollgate/internal/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStoreKeepsTheRules runs the conformance suite of all stores. The server's
// clock is a key, so that minutes pass at once; the scripts are otherwise those
// of production.
func TestStoreKeepsTheRules(t *testing.T) {
	s := startServer(t)
	client := s.dial()
	passed := func(d time.Duration) {
		t.Helper()
		cmd := client.B().Incrby().Key(redisstore.TestClock).Increment(d.Microseconds()).Build()
		if err := client.Do(context.Background(), cmd).Error(); err != nil {
			t.Fatal(err)
		}
	}
	passed(time.Duration(time.Now().UnixNano()))
	var stores atomic.Int64
	storetest.Limits(t, func(t *testing.T) limit.Store {
		t.Helper()
		prefix := fmt.Sprintf("{tollgate}:%d:", stores.Add(1))
		return s.open(t, func(o *redisstore.Options) { *o = o.WithClock(prefix) })
	}, passed)
}
