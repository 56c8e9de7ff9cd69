package redisstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

// TestADeadLeaseIsGoneBeforeItIsRemoved: more leases are dead than one script
// removes, and what comes for one of the rest changes nothing any more.
func TestADeadLeaseIsGoneBeforeItIsRemoved(t *testing.T) {
	const removed = 500 // by one script
	s := startServer(t)
	setClock(t, s)
	store := s.open(t, func(o *redisstore.Options) { *o = o.WithClock("{tollgate}:") })
	client := s.dial()
	for name, late := range map[string]func(id string) error{
		"reserve": func(id string) error {
			_, err := store.Reserve(t.Context(), id, free, limit.Reservation{Tokens: 10, Slots: 3})
			return err
		},
		"claim":  func(id string) error { return store.Claim(t.Context(), id) },
		"extend": func(id string) error { _, err := store.Extend(t.Context(), id, free, 10); return err },
	} {
		for i := range removed {
			if got := acquire(t, store, fmt.Sprintf("%s-%03d", name, i), free); got != limit.Admitted {
				t.Fatalf("Acquire: %q", got)
			}
		}
		id := name + "-last"
		if got := acquire(t, store, id, free); got != limit.Admitted {
			t.Fatalf("Acquire: %q", got)
		}
		later, err := client.Do(t.Context(), client.B().Incrby().Key(redisstore.TestClock).Increment((limit.ProvisionalLife + time.Second).Microseconds()).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		if err := late(id); !errors.Is(err, limit.ErrLease) {
			t.Errorf("%s of a dead lease at %d: %v, want %v", name, later, err, limit.ErrLease)
		}
		if got := view(t, store); got.Slots != 0 || got.Reserved != 0 || got.Leases != 0 {
			t.Errorf("%s of a dead lease leaves %+v", name, got)
		}
	}
}
