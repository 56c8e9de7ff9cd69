package handover_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// ending is how a request of the storm ended for its client.
type ending struct {
	seen   bool // the end of the answer, or all of a whole one
	events int  // of a stream that came
}

// storm are requests from many clients at once, a third of which leave.
type storm struct {
	s    *stack.Stack
	more func() bool   // whether another request is to be sent
	rest time.Duration // between two requests of a client

	mu      sync.Mutex
	endings map[string]ending // by request id; guarded by mu, like refused
	refused int               // tollgate was away
	unsent  int               // left before the answer began, or not sent at all
	failed  error             // the last of those that were not left
}

// TestNothingIsLostInAStorm: tollgate is killed again and again under many requests,
// a third of which their clients leave. Every request that reached the engine has one
// row, which is never above what the engine made; where its client saw the end it is
// exact.
func TestNothingIsLostInAStorm(t *testing.T) {
	stack.NeedModule(t)
	requests := asMany("PROOF_REQUESTS", 600, 100_000)
	s := stack.Start(t, stack.Options{Sim: vllmsim.Options{MaxTruths: requests}}) // it must not forget what it made
	const clients = 24
	every := map[bool]time.Duration{false: 700 * time.Millisecond, true: 10 * time.Second}[proof()]
	var left atomic.Int64
	left.Store(int64(requests))
	st := &storm{s: s, endings: map[string]ending{}, more: func() bool { return left.Add(-1) >= 0 }}
	over := st.begin(t.Context(), clients)
	kills := 0
	for running := true; running; {
		select {
		case <-over:
			running = false
		case <-time.After(every):
			s.Tollgate.Kill()
			time.Sleep(200 * time.Millisecond)
			s.Tollgate.Start()
			kills++
		}
	}
	s.Ready()
	settled(t, s)
	st.check(t, kills, requests/2)
}

// begin lets clients send; the channel is closed when all have ended.
func (st *storm) begin(ctx context.Context, clients int) (over chan struct{}) {
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { st.client(ctx, rand.New(rand.NewPCG(uint64(i), 16))) })
	}
	over = make(chan struct{})
	go func() { all.Wait(); close(over) }()
	return over
}

// client sends requests until there are none left.
func (st *storm) client(ctx context.Context, dice *rand.Rand) {
	for ; st.more(); time.Sleep(st.rest) {
		kind := kinds[dice.IntN(len(kinds))]
		body := fmt.Sprintf(kind.body, 1+2*dice.IntN(2), 3+dice.IntN(25), 5)
		end := kind.end
		if dice.IntN(4) == 0 { // a whole answer
			body, end = strings.Replace(body, `"stream":true,`, "", 1), ""
		}
		leaveAfter := -1
		if dice.IntN(3) == 0 {
			leaveAfter = dice.IntN(10)
		}
		if !st.request(ctx, kind.path, body, end, leaveAfter) {
			time.Sleep(50 * time.Millisecond) // refused, as a client would
		}
	}
}

// request sends one and reads its answer, all of it or so many events; end "" is a
// whole answer.
func (st *storm) request(ctx context.Context, path, body, end string, leaveAfter int) (admitted bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if end == "" && leaveAfter >= 0 {
		time.AfterFunc(time.Duration(leaveAfter)*10*time.Millisecond, cancel)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, st.s.URL+path, strings.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := st.s.HTTP1.Do(req)
	if err != nil {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.unsent++
		if ctx.Err() == nil {
			st.failed = err
		}
		return true
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		st.mu.Lock()
		st.refused++
		st.mu.Unlock()
		return false
	}
	var e ending
	if end == "" {
		_, err = io.Copy(io.Discard, resp.Body)
		e.seen = err == nil
	} else {
		e = follow(resp.Body, end, leaveAfter)
	}
	st.mu.Lock()
	st.endings[resp.Header.Get("x-request-id")] = e
	st.mu.Unlock()
	return true
}

// follow reads a stream to its end, or so many events of it.
func follow(body io.Reader, end string, most int) (e ending) {
	var all bytes.Buffer
	buf := make([]byte, 8<<10)
	for {
		n, err := body.Read(buf)
		all.Write(buf[:n])
		e.events = bytes.Count(all.Bytes(), []byte("\n\n"))
		switch {
		case bytes.Contains(all.Bytes(), []byte(end)):
			e.seen = true
			return e
		case err != nil, most >= 0 && e.events >= most:
			return e
		}
	}
}

// check compares the rows with what the engine and the clients know.
func (st *storm) check(t *testing.T, kills, least int) { //nolint:gocyclo // one story, told step by step
	t.Helper()
	rows, twice := map[string]ledger.Record{}, 0
	err := st.s.Ledger().Each(t.Context(), ledger.Filter{}, func(r ledger.Record) error {
		if _, ok := rows[r.RequestID]; ok {
			twice++
		}
		rows[r.RequestID] = r
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lost, above, wrong, reached := 0, 0, 0, 0
	for _, made := range st.s.Sim.Truths() {
		if made.Status != 0 && made.Status != http.StatusOK || made.RequestID == "" {
			continue
		}
		reached++
		r, ok := rows[made.RequestID]
		switch {
		case !ok || r.Open():
			lost++
		case r.Quality != ledger.Estimated && r.Counts.Completion > int64(made.Completion()):
			above++
			t.Logf("above: %s %s %s %d, made %d", r.Endpoint, r.Reason, r.Quality, r.Counts.Completion, made.Completion())
		case st.endings[made.RequestID].seen && !exactly(&r, &made):
			wrong++
			t.Logf("seen whole: %s %s %s %d, made %d", r.Endpoint, r.Reason, r.Quality, r.Counts.Completion, made.Completion())
		}
	}
	t.Logf("%d requests reached the engine, %d were refused, %d had no answer (%v), %d kills; rows: %d lost, %d twice, %d above, %d not exact",
		reached, st.refused, st.unsent, st.failed, kills, lost, twice, above, wrong)
	if kills == 0 || reached < least {
		t.Errorf("no storm: %d kills, %d requests reached the engine, want %d at least", kills, reached, least)
	}
	if lost+twice+above+wrong > 0 {
		t.Errorf("%d rows lost, %d twice, %d above what was made, %d not exact although their client saw the end", lost, twice, above, wrong)
	}
}

func exactly(r *ledger.Record, made *vllmsim.Truth) bool {
	return r.Reason == ledger.Complete && r.Quality == ledger.Exact && r.Counts.Completion == int64(made.Completion())
}
