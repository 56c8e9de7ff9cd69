package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/anishathalye/porcupine"

	"tollgate/internal/limit"
)

const (
	histories      = 200
	historyClients = 16
	historyCalls   = 12 // by each client
	historyLeases  = 8  // ids that the clients share
)

// historyCaps are low enough that every limit refuses now and then.
var historyCaps = limit.Caps{Global: 4, Concurrent: 3, Requests: 10, Tokens: 50, Quota: 40, QuotaPeriod: period}

// historyCall is one call; what is not of its kind is 0.
type historyCall struct {
	kind   string // acquire, claim, reserve, extend, release
	lease  int
	tokens int64
	slots  int64
	back   bool
}

func (c historyCall) reservation() limit.Reservation {
	r := whole(c.tokens)
	r.Slots = c.slots
	return r
}

// key is the key that a lease id belongs to: two keys share the gateway.
func (c historyCall) key() int { return c.lease % 2 }

// historyState is what the store would hold if calls came one by one. It is
// comparable. Time stands still: nothing slides out or expires.
type historyState struct {
	leases   [historyLeases]historyLease
	requests [2]int64
	tokens   [2]int64
}

type historyLease struct {
	live, claimed, hasReserved bool
	reserved                   int64
	slots                      int64 // of the key; of the gateway's each has one, a quarter of 4
	held                       int64
}

func (s *historyState) slots() (all int64, of [2]int64) {
	for i, l := range s.leases {
		if l.live {
			all++
			of[i%2] += l.slots
		}
	}
	return all, of
}

func (s *historyState) reserved(key int) (n int64) {
	for i, l := range s.leases {
		if i%2 == key {
			n += l.reserved
		}
	}
	return n
}

func (s *historyState) held(key int) (n int64) {
	for i, l := range s.leases {
		if i%2 == key {
			n += l.held
		}
	}
	return n
}

func (s *historyState) tokensDenied(key int, tokens int64) limit.Denial {
	c := historyCaps
	switch {
	case s.tokens[key]+s.reserved(key)+min(tokens, c.Tokens) > c.Tokens:
		return limit.TokensWindow
	case s.tokens[key]+s.held(key) >= c.Quota:
		return limit.Quota
	}
	return limit.Admitted
}

// step makes a call on the state and returns its answer.
func (s *historyState) step(c historyCall) string {
	l, key := &s.leases[c.lease], c.key()
	switch c.kind {
	case "acquire":
		return s.acquire(l, key)
	case "claim":
		if !l.live || l.claimed {
			return "no lease"
		}
		l.claimed = true
		return "ok"
	case "reserve":
		return s.reserve(l, key, c)
	case "extend":
		return s.extend(l, key)
	}
	if !l.live {
		return "no lease"
	}
	*l = historyLease{}
	s.tokens[key] += c.tokens
	if c.back {
		s.requests[key]--
	}
	return "ok"
}

func (s *historyState) reserve(l *historyLease, key int, c historyCall) string {
	if !l.live || l.hasReserved {
		return "no lease"
	}
	_, of := s.slots()
	if more := min(c.slots, historyCaps.Concurrent) - 1; more > 0 && of[key]+more > historyCaps.Concurrent {
		return string(limit.KeySlots)
	}
	if denied := s.tokensDenied(key, c.tokens); denied != limit.Admitted {
		return string(denied)
	}
	l.slots = max(1, min(c.slots, historyCaps.Concurrent))
	l.held = min(c.tokens, historyCaps.Quota-s.tokens[key]-s.held(key))
	l.hasReserved, l.reserved = true, c.tokens
	return "ok"
}

// extend takes all that is left, because a step is more than the whole quota.
func (s *historyState) extend(l *historyLease, key int) string {
	if !l.live {
		return "no lease"
	}
	if !l.hasReserved {
		return "granted -1"
	}
	l.held += max(0, historyCaps.Quota-s.tokens[key]-s.held(key))
	return fmt.Sprint("granted ", l.held)
}

func (s *historyState) acquire(l *historyLease, key int) string {
	if l.live {
		return "no lease"
	}
	all, of := s.slots()
	denied := s.tokensDenied(key, 1)
	switch c := historyCaps; {
	case s.requests[key] >= c.Requests:
		denied = limit.Requests
	case all >= c.Global:
		denied = limit.GlobalSlots
	case of[key] >= c.Concurrent:
		denied = limit.KeySlots
	}
	if denied != limit.Admitted {
		return string(denied)
	}
	l.live, l.slots = true, 1
	s.requests[key]++
	return "ok"
}

// historyModel says which orders of calls and answers are possible.
func historyModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return historyState{} },
		Step: func(state, input, output any) (bool, any) {
			s, okState := state.(historyState)
			c, okInput := input.(historyCall)
			if !okState || !okInput {
				return false, state
			}
			return s.step(c) == output, s
		},
	}
}

// checkHistories lets clients call at the same time and asks whether some
// order of the calls explains every answer.
func checkHistories(r *limitsRig) {
	seen := make(map[string]int)
	n := uint64(histories)
	if raced {
		n /= 10
	}
	for seed := range n {
		ops := recordHistory(r, seed)
		for _, op := range ops {
			seen[fmt.Sprint(op.Output)]++
		}
		if !porcupine.CheckOperations(historyModel(), ops) {
			r.t.Fatalf("history %d is not linearizable:\n%s", seed, describeHistory(ops))
		}
	}
	for _, answer := range []limit.Denial{
		limit.Requests, limit.GlobalSlots, limit.KeySlots, limit.TokensWindow, limit.Quota, "ok", "no lease",
	} {
		if seen[string(answer)] == 0 {
			r.t.Errorf("no history has the answer %q: %v", answer, seen)
		}
	}
}

// recordHistory runs one history on a store of its own.
func recordHistory(r *limitsRig, seed uint64) []porcupine.Operation {
	store := r.fresh()
	defer store.Close() //nolint:errcheck // the store's own tests look at Close
	for key := range 2 {
		if err := store.Seed(r.ctx, historyKey(key), period, 0); err != nil {
			r.t.Fatalf("Seed: %v", err)
		}
	}
	var (
		clock atomic.Int64 // orders calls and returns, whatever the time is
		group sync.WaitGroup
		start = make(chan struct{})
		each  [historyClients][]porcupine.Operation
	)
	for client := range historyClients {
		random := rand.New(rand.NewPCG(seed, uint64(client))) //nolint:gosec // repeatable, not secret
		group.Go(func() {
			<-start
			for range historyCalls {
				c := drawCall(random)
				op := porcupine.Operation{ClientId: client, Input: c, Call: clock.Add(1)}
				op.Output = makeCall(r.ctx, store, c)
				op.Return = clock.Add(1)
				each[client] = append(each[client], op)
				if random.IntN(2) == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	close(start)
	group.Wait()
	var ops []porcupine.Operation
	for _, of := range each {
		ops = append(ops, of...)
	}
	return ops
}

func historyKey(key int) string { return fmt.Sprint("key-", key) }

func drawCall(random *rand.Rand) historyCall {
	c := historyCall{lease: random.IntN(historyLeases)}
	switch n := random.IntN(10); {
	case n < 4:
		c.kind = "acquire"
	case n < 5:
		c.kind = "claim"
	case n < 7:
		c.kind, c.tokens, c.slots = "reserve", random.Int64N(40), 1+random.Int64N(3)
	case n < 8:
		c.kind = "extend"
	default:
		c.kind, c.tokens, c.back = "release", random.Int64N(8), random.IntN(4) == 0
	}
	return c
}

// makeCall makes a call and puts its answer in the model's words.
func makeCall(ctx context.Context, store limit.Store, c historyCall) string {
	id := fmt.Sprint("lease-", c.lease)
	var (
		d   limit.Decision
		ok  = true
		err error
	)
	switch c.kind {
	case "acquire":
		d, err = store.Acquire(ctx, limit.Ask{
			LeaseID: id, KeyID: historyKey(c.key()), Caps: historyCaps, Slot: true, Tokens: true,
		})
	case "claim":
		err = store.Claim(ctx, id)
	case "reserve":
		d, err = store.Reserve(ctx, id, historyCaps, c.reservation())
	case "extend":
		var granted int64
		if granted, err = store.Extend(ctx, id, historyCaps, 0); err == nil {
			return fmt.Sprint("granted ", granted)
		}
	default:
		ok, err = store.Release(ctx, id, limit.Final{Total: c.tokens, QuotaPeriod: period, GiveBackRequest: c.back})
	}
	switch {
	case errors.Is(err, limit.ErrLease), err == nil && !ok:
		return "no lease"
	case err != nil:
		return err.Error()
	case d.Denied != limit.Admitted:
		return string(d.Denied)
	}
	return "ok"
}

func describeHistory(ops []porcupine.Operation) string {
	var b strings.Builder
	for _, op := range ops {
		fmt.Fprintf(&b, "%4d-%-4d client %d %+v: %v\n", op.Call, op.Return, op.ClientId, op.Input, op.Output)
	}
	return b.String()
}
