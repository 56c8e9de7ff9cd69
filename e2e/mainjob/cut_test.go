package mainjob_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

func sum(xs []int) int {
	n := 0
	for _, x := range xs {
		n += x
	}
	return n
}

// open starts a stream and returns its answer and what ends it.
func open(t *testing.T, s *stack.Stack, c *http.Client, body string) (*http.Response, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	return resp, cancel
}

func scripted(n int, sim string) string {
	return fmt.Sprintf(`{"model":"tiny","stream":true,"n":%d,"max_tokens":40,"temperature":0.5,"messages":[{"role":"user","content":"count for me"}],"sim":{%s}}`, n, sim)
}

// readChunks reads until the client has seen so many content chunks.
func readChunks(t *testing.T, r *bufio.Reader, chunks int) {
	t.Helper()
	for chunks > 0 {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended early: %v", err)
		}
		if strings.Contains(line, `"content":"`) && !strings.Contains(line, `"role":`) {
			chunks--
		}
	}
}

func TestAStreamCutByItsClientIsChargedExactly(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	for name, c := range map[string]*http.Client{"h1": s.HTTP1, "h2": s.HTTP2} {
		for _, n := range []int{1, 3} {
			for k := 0; k <= 20; k++ {
				resp, cancel := open(t, s, c, scripted(n, fmt.Sprintf(`"pause_after":%d`, k)))
				id := resp.Header.Get("x-request-id")
				r := bufio.NewReader(resp.Body)
				if k == 0 {
					if _, err := r.ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
				readChunks(t, r, k)
				stack.Eventually(t, 5*time.Second, "the simulator to pause", func() bool { return s.Truth(id).Paused })
				cancel()
				_ = resp.Body.Close()
				rec := s.RecordWhen(id, "named", func(r ledger.Record) bool { return !r.Open() && r.Reason != ledger.Aborted })
				stack.Eventually(t, 5*time.Second, "the simulator to notice", func() bool { return s.Truth(id).Aborted })
				truth := s.Truth(id)
				if rec.Reason != ledger.ClientAbort || rec.Quality != ledger.Exact {
					t.Errorf("%s n=%d k=%d: got %s %s, want client_abort exact", name, n, k, rec.Reason, rec.Quality)
				}
				if rec.Counts.Completion != int64(sum(truth.Written)) || rec.Counts.Completion != int64(sum(truth.Chunks)) ||
					rec.Counts.Prompt != int64(truth.PromptTokens) {
					t.Errorf("%s n=%d k=%d: the ledger says %d + %d, written %v of prompt %d", name, n, k,
						rec.Counts.Prompt, rec.Counts.Completion, truth.Written, truth.PromptTokens)
				}
				if n == 1 && rec.Counts.Completion != int64(k) {
					t.Errorf("%s k=%d: the ledger says %d", name, k, rec.Counts.Completion)
				}
			}
		}
	}
	stack.Eventually(t, 2*time.Second, "all leases to be back", func() bool { return s.Metric("tollgate_leases_live") == 0 })
	if got := s.Metric("tollgate_witness_disagreements_total"); got != 0 {
		t.Errorf("the witnesses disagreed %v times", got)
	}
}

func TestAStreamCutByTheEngineIsNamed(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	for name, c := range map[string]struct {
		sim  string
		want ledger.EndReason
		k    int64
	}{
		"connection closed":  {`"cut_after":5,"delay_ms":20`, ledger.UpstreamAbort, 5},
		"connection reset":   {`"cut_after":3,"cut":"rst","delay_ms":20`, ledger.UpstreamAbort, 3},
		"error event":        {`"error_after":4`, ledger.UpstreamError, 4},
		"engine shuts down":  {`"engine_abort_after":6`, ledger.EngineAbort, 6},
		"no end":             {`"no_done":true,"tokens":7`, ledger.UpstreamAbort, 7},
		"refused with a 500": {`"error_status":500`, ledger.Refused, 0},
	} {
		t.Run(name, func(t *testing.T) {
			resp, cancel := open(t, s, s.HTTP1, scripted(1, c.sim))
			defer cancel()
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			id := resp.Header.Get("x-request-id")
			rec := s.RecordWhen(id, "named", func(r ledger.Record) bool { return !r.Open() && r.Reason != ledger.Aborted })
			if rec.Reason != c.want || rec.Quality != ledger.Exact || rec.Counts.Completion > c.k {
				t.Errorf("got %s %s %d, want %s exact %d", rec.Reason, rec.Quality, rec.Counts.Completion, c.want, c.k)
			}
			cut := strings.HasPrefix(name, "connection")
			if cut && (err == nil || strings.Contains(string(body), "[DONE]")) {
				t.Errorf("the client saw a clean end: %q, %v", body, err)
			}
			delivered := int64(strings.Count(string(body), `"content":"`) - strings.Count(string(body), `"content":""`))
			if truth := s.Truth(id); rec.Counts.Completion < delivered || rec.Counts.Completion > int64(sum(truth.Generated)) {
				t.Errorf("delivered %d ≤ ledger %d ≤ generated %v does not hold", delivered, rec.Counts.Completion, truth.Generated)
			}
			if !cut && rec.Counts.Completion != c.k {
				t.Errorf("the ledger says %d, want %d", rec.Counts.Completion, c.k)
			}
		})
	}
}

func TestAClientThatSawTheEndIsInTheLedger(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	r := s.Ledger()
	for range 30 {
		resp, cancel := open(t, s, s.HTTP1, scripted(1, `"tokens":3`))
		id := resp.Header.Get("x-request-id")
		in := bufio.NewReader(resp.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(line, "data: [DONE]") {
				break
			}
		}
		found := false
		err := r.Each(t.Context(), ledger.Filter{}, func(rec ledger.Record) error {
			if rec.RequestID == id {
				found = rec.Reason == ledger.Complete
			}
			return nil
		})
		if err != nil || !found {
			t.Fatalf("the client saw [DONE], the ledger has no complete record (%v)", err)
		}
		cancel()
		_ = resp.Body.Close()
	}
}

func TestBytesAreThoseOfTheEngine(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	direct := "http://" + s.Cfg.EngineAddresses()[0]
	const head = `{"model":"tiny","stream":true,"n":2,"max_tokens":12,"temperature":0.5,"messages":[{"role":"user","content":"bytes"}]`
	for name, c := range map[string]struct{ through, direct string }{
		"asked for all usage":   {head + `,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`, head + `,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`},
		"asked for final usage": {head + `,"stream_options":{"include_usage":true}}`, head + `,"stream_options":{"include_usage":true}}`},
		"asked for no usage":    {head + `}`, head + `}`},
		"split everywhere":      {head + `,"sim":{"chunk_bytes":7}}`, head + `}`},
		"joined":                {head + `,"sim":{"join":3}}`, head + `}`},
		"crlf":                  {head + `,"sim":{"crlf":true}}`, head + `,"sim":{"crlf":true}}`},
		"comments":              {head + `,"stream_options":{"include_usage":true},"sim":{"comments":true}}`, head + `,"stream_options":{"include_usage":true},"sim":{"comments":true}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.Post("/v1/chat/completions", c.through)
			req, err := http.NewRequest(http.MethodPost, direct+"/v1/chat/completions", strings.NewReader(c.direct))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("X-Request-Id", got.RequestID())
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			want, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if g, w := timeless(string(got.Bytes)), timeless(string(want)); g != w {
				t.Errorf("through the gateway:\n%s\nfrom the engine:\n%s", g, w)
			}
		})
	}
}

// timeless blanks the second in which an answer was made.
func timeless(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, `"created":`)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		i += len(`"created":`)
		b.WriteString(s[:i])
		s = strings.TrimLeft(s[i:], "0123456789")
	}
}

func TestAKilledGatewayLosesNoRequest(t *testing.T) { //nolint:gocyclo // one story, told in order
	const streams = 50
	s := stack.Start(t, stack.Options{Sim: vllmsim.Options{Delay: 10 * time.Millisecond}})
	var wg sync.WaitGroup
	var mu sync.Mutex
	clean, ids := 0, map[string]bool{}
	for range streams {
		resp, cancel := open(t, s, s.HTTP1, strings.Replace(scripted(1, `"tokens":2000`), `"max_tokens":40`, `"max_tokens":2000`, 1))
		mu.Lock()
		ids[resp.Header.Get("x-request-id")] = true
		mu.Unlock()
		wg.Go(func() {
			defer cancel()
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			if err == nil || strings.Contains(string(body), "[DONE]") {
				clean++
			}
		})
	}
	time.Sleep(600 * time.Millisecond) // let the streams run and be checkpointed
	s.Tollgate.Kill()
	wg.Wait()
	want, wantClean := ledger.GatewayCrash, 0
	if s.Module { // Envoy goes on by itself
		want, wantClean = ledger.Complete, streams
	}
	if clean != wantClean {
		t.Errorf("%d of %d clients saw a clean end, want %d", clean, streams, wantClean)
	}
	s.Tollgate.Start()
	s.Ready()
	for id := range ids {
		rec, made := s.Settled(id), int64(sum(s.Truth(id).Generated))
		low := made
		if !s.Module {
			low = 0
		}
		if rec.Reason != want || rec.Counts.Completion > made || rec.Counts.Completion < low {
			t.Errorf("request %s: %s with %d, generated %d", id, rec.Reason, rec.Counts.Completion, made)
		}
		if rec.Quality == ledger.Partial && rec.Counts.Completion == 0 {
			t.Errorf("request %s ran for half a second and has no checkpoint", id)
		}
	}
	if got := s.Metric("tollgate_leases_live"); got != 0 {
		t.Errorf("leases after the restart: %v", got)
	}
	if a := s.Post("/v1/chat/completions", scripted(1, `"tokens":3`)); a.StatusCode != http.StatusOK || a.Err != nil {
		t.Errorf("after the restart: %d %v", a.StatusCode, a.Err)
	}
}

func TestAStoppedGatewayDrains(t *testing.T) {
	s := stack.Start(t, stack.Options{Config: "drain_timeout: 2s"})
	short, cancel := open(t, s, s.HTTP1, scripted(1, `"tokens":30,"delay_ms":20`))
	defer cancel()
	defer func() { _ = short.Body.Close() }()
	long, cancelLong := open(t, s, s.HTTP2, scripted(1, `"pause_after":5`))
	defer cancelLong()
	defer func() { _ = long.Body.Close() }()
	s.Tollgate.Signal(15)
	if s.Module {
		goesOnAlone(t, s, short, long)
		return
	}
	if body, err := io.ReadAll(short.Body); err != nil || !strings.Contains(string(body), "[DONE]") {
		t.Errorf("a short stream was not let finish: %v", err)
	}
	if _, err := io.ReadAll(long.Body); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a stream longer than drain_timeout saw a clean end")
	}
	if code := s.Tollgate.Wait(5 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	rec := s.Settled(long.Header.Get("x-request-id"))
	if rec.Reason != ledger.Drained || rec.Counts.Completion != 5 {
		t.Errorf("the long stream: %s with %d, want drained with 5", rec.Reason, rec.Counts.Completion)
	}
}

// goesOnAlone: tollgate does not wait for streams that are metered inside Envoy. They
// end as they would have, and are on record when tollgate is back.
func goesOnAlone(t *testing.T, s *stack.Stack, answers ...*http.Response) {
	t.Helper()
	if code := s.Tollgate.Wait(5 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	s.Sim.Release()
	for _, a := range answers {
		if body, err := io.ReadAll(a.Body); err != nil || !strings.Contains(string(body), "[DONE]") {
			t.Errorf("a stream was cut: %v", err)
		}
	}
	s.Tollgate.Start()
	s.Ready()
	for _, a := range answers {
		id := a.Header.Get("x-request-id")
		if rec := s.Settled(id); rec.Reason != ledger.Complete || rec.Quality != ledger.Exact || rec.Counts.Completion != int64(sum(s.Truth(id).Generated)) {
			t.Errorf("request %s: %s %s with %d", id, rec.Reason, rec.Quality, rec.Counts.Completion)
		}
	}
}
