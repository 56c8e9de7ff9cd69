package faults_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// load is many clients that never stop asking.
type load struct {
	s    *stack.Stack
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	acked map[string]bool // request ids whose end a client has seen; guarded by mu
	sent  int
	codes map[int]int // answers by status, 0 for none
}

var jobs = []string{
	`{"model":"tiny","stream":true,"max_tokens":10,"messages":[{"role":"user","content":"short"}],"sim":{"delay_ms":2}}`,
	`{"model":"tiny","stream":true,"max_tokens":400,"messages":[{"role":"user","content":"long"}],"sim":{"delay_ms":10}}`,
	`{"model":"tiny","stream":true,"n":2,"temperature":0.5,"max_tokens":60,"messages":[{"role":"user","content":"two"}],"sim":{"delay_ms":5}}`,
	`{"model":"tiny","max_tokens":20,"messages":[{"role":"user","content":"whole"}],"sim":{"delay_ms":2}}`,
	`{"model":"tiny","stream":true,"max_tokens":200,"messages":[{"role":"user","content":"fast"}],"sim":{"delay_ms":1}}`,
}

// startLoad runs clients until the test or stop ends them.
func startLoad(t *testing.T, s *stack.Stack, clients int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{s: s, stop: cancel, acked: map[string]bool{}, codes: map[int]int{}}
	for i := range clients {
		l.wg.Go(func() {
			client := []*http.Client{s.HTTP1, s.HTTP2}[i%2]
			for ctx.Err() == nil {
				if l.ask(ctx, client, jobs[rand.IntN(len(jobs))]) != http.StatusOK {
					wait(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	t.Cleanup(l.halt)
	return l
}

func (l *load) halt() {
	l.stop()
	l.wg.Wait()
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// ask sends one request and notes whether its end was seen.
func (l *load) ask(ctx context.Context, client *http.Client, body string) int {
	status := 0
	defer func() {
		l.mu.Lock()
		l.sent++
		l.codes[status]++
		l.mu.Unlock()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.s.URL+path, strings.NewReader(body))
	if err != nil {
		return status
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return status
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	status = resp.StatusCode
	whole := strings.Contains(string(got), "data: [DONE]")
	if !strings.Contains(body, `"stream":true`) {
		whole = err == nil
	}
	if status == http.StatusOK && whole {
		l.mu.Lock()
		l.acked[resp.Header.Get("x-request-id")] = true
		l.mu.Unlock()
	} else if err == nil && status == http.StatusOK {
		status = 0
	}
	return status
}

// cut is how many answers that had begun broke off.
func (l *load) cut() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.codes[0]
}

// takeAcked returns what was acknowledged since the last call.
func (l *load) takeAcked() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.acked
	l.acked = map[string]bool{}
	return out
}

// rowsSince reads the rows that started at or after a time, by request id, and
// reports requests that have two.
func rowsSince(t *testing.T, s *stack.Stack, since time.Time) map[string]ledger.Record {
	t.Helper()
	r := openLedger(t, s)
	defer func() { _ = r.Close() }()
	out := map[string]ledger.Record{}
	err := r.Each(t.Context(), ledger.Filter{Since: since}, func(rec ledger.Record) error {
		if _, twice := out[rec.RequestID]; twice {
			t.Errorf("request %s is recorded twice", rec.RequestID)
		}
		out[rec.RequestID] = rec
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// verify checks the ledger's own invariants.
func verify(t *testing.T, s *stack.Stack) {
	t.Helper()
	r := openLedger(t, s)
	defer func() { _ = r.Close() }()
	found, err := r.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Errorf("the ledger breaks %s: %s %s", v.Rule, v.LeaseID, v.Detail)
	}
}

// running are the tokens that the engine has written of each request that it
// is answering now.
func running(s *stack.Stack) map[string]int64 {
	out := map[string]int64{}
	for _, tr := range s.Sim.Truths() {
		if tr.EndedAt.IsZero() && tr.Stream && !tr.Finished {
			out[tr.RequestID] = int64(tr.WrittenTokens())
		}
	}
	return out
}

// lost reports acknowledged requests without a complete row.
func lost(t *testing.T, acked map[string]bool, rows map[string]ledger.Record) {
	t.Helper()
	for id := range acked {
		if r, ok := rows[id]; !ok || r.Reason != ledger.Complete {
			t.Errorf("a client saw the end of request %s; its row: %v %s", id, ok, r.Reason)
		}
	}
}

// notAbove reports rows that say more than the engine made, and exact rows of
// whole answers that say less.
func notAbove(t *testing.T, s *stack.Stack, rows map[string]ledger.Record) {
	t.Helper()
	for id, r := range rows {
		truth, ok := s.Sim.Truth(id)
		made := int64(truth.Completion())
		if !ok && r.Counts.Completion == 0 {
			continue
		}
		if r.Quality != ledger.Estimated && r.Counts.Completion > made {
			t.Errorf("request %s: recorded %d %s, made %d", id, r.Counts.Completion, r.Quality, made)
		}
		if r.Reason == ledger.Complete && r.Counts.Completion != made {
			t.Errorf("request %s: complete with %d, made %d", id, r.Counts.Completion, made)
		}
	}
}

func describe(rows map[string]ledger.Record) string {
	n := map[string]int{}
	for _, r := range rows {
		n[string(r.Reason)+" "+string(r.Quality)]++
	}
	return fmt.Sprint(n)
}
