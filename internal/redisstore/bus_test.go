package redisstore_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"tollgate/internal/redisstore"
	"tollgate/internal/ticket"
)

// ear collects what a replica hears.
type ear struct {
	mu    sync.Mutex
	heard []string
}

func listen(t *testing.T, s *redisstore.Store) *ear {
	t.Helper()
	e := &ear{}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Listen(ctx, func(m []byte) {
			e.mu.Lock()
			e.heard = append(e.heard, string(m))
			e.mu.Unlock()
		})
	}()
	t.Cleanup(func() { stop(); <-ended })
	return e
}

func (e *ear) has(message string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.heard, message)
}

// TestReplicasHearEachOther: all hear what is for all, one what is for it, and after
// an outage again.
func TestReplicasHearEachOther(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p, both := pair(t, s)
	ears := []*ear{listen(t, both[0]), listen(t, both[1])}
	say := func(from *redisstore.Store, to, message string) bool {
		_, err := from.Publish(t.Context(), to, []byte(message))
		return err == nil
	}
	hello := func(round string) {
		t.Helper()
		await(t, 10*time.Second, "all to hear "+round, func() bool {
			return say(both[0], "", round) && ears[0].has(round) && ears[1].has(round)
		})
	}
	hello("first")
	binary := "only you \x00\xff"
	for to, want := range map[string]int{both[1].Name(): 1, "": 2, "nobody": 0} {
		if n, err := both[0].Publish(t.Context(), to, []byte(binary)); n != want || err != nil {
			t.Errorf("Publish to %q: %d listened, %v, want %d", to, n, err, want)
		}
	}
	await(t, 5*time.Second, "the message", func() bool { return ears[1].has(binary) })
	if both[0].Peers() != 1 {
		t.Errorf("peers: got %d, want 1", both[0].Peers())
	}

	p.set(0, false, true)
	totals(t, both[0]) // notices
	if say(both[0], "", "lost") {
		t.Error("Publish during an outage: no error")
	}
	p.set(0, false, false)
	awaitShared(t, both)
	if !say(both[0], both[1].Name(), "only you") {
		t.Error("cannot publish")
	}
	hello("second")
	if ears[0].has("only you") {
		t.Error("another replica has heard it")
	}
	if ears[1].has("lost") {
		t.Error("what was lost was heard")
	}
}

// TestReplicasShareTicketKeys: the first makes one, all have it, and a Redis that
// lost it gets it back.
func TestReplicasShareTicketKeys(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p, both := pair(t, s)
	first, second := ticket.NewKey(), ticket.NewKey()
	get := func(r *redisstore.Store, current, fresh string) []string {
		t.Helper()
		keys, err := r.TicketKeys(t.Context(), current, fresh)
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	for _, got := range [][]string{get(both[0], "", first), get(both[1], "", second), get(both[0], first, second)} {
		if !slices.Equal(got, []string{first}) {
			t.Fatalf("got %d keys, want the first one", len(got))
		}
	}
	client := s.dial()
	made := "{tollgate}:ticket-keys.made"
	if err := client.Do(t.Context(), client.B().Decrby().Key(made).Decrement((25 * time.Hour).Microseconds()).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if got := get(both[1], first, second); !slices.Equal(got, []string{second, first}) {
		t.Errorf("after a day: got %d keys, want the new one before the old", len(got))
	}
	faults["restarted"].fail(s, p)
	totals(t, both[0])
	if _, err := both[0].TicketKeys(t.Context(), second, first); err == nil {
		t.Error("keys without Redis: no error")
	}
	faults["restarted"].heal(s, p)
	awaitShared(t, both)
	if got := get(both[0], second, ticket.NewKey()); !slices.Equal(got, []string{second}) {
		t.Error("a Redis that lost all did not get the key back")
	}
}
