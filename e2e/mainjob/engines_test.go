package mainjob_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// engine is a simulator that a test can end.
func engine(t *testing.T) (sim *vllmsim.Sim, addr string, stop func()) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sim = vllmsim.New(vllmsim.Options{Models: []string{"tiny"}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sim.Serve(ctx, lis)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return sim, lis.Addr().String(), stop
}

func TestSeveralEnginesShareTheLoadAndOneMayDie(t *testing.T) {
	_, a, stopA := engine(t)
	_, b, _ := engine(t)
	s := stack.Start(t, stack.Options{Engine: a, VLLM: fmt.Sprintf("  endpoints: [%q, %q]", a, b)})
	for i := range 40 {
		// Other words each time: what an engine has in its cache stays with it.
		if got := s.Post("/v1/chat/completions", strings.Replace(scripted(1, `"tokens":2`), "count for me", fmt.Sprint(i, " things to count"), 1)); got.StatusCode != http.StatusOK {
			t.Fatalf("with two engines: %d", got.StatusCode)
		}
	}
	by := map[string]int{}
	for _, rec := range s.Records() {
		by[rec.Engine]++
	}
	if by[a] == 0 || by[b] == 0 || by[a]+by[b] != 40 {
		t.Errorf("records by engine: %v, want all 40 over %s and %s", by, a, b)
	}
	stopA()
	// Before any health check can have seen it: half of these meet the dead one first.
	for range 100 {
		if got := s.Post("/v1/chat/completions", scripted(1, `"tokens":2`)); got.StatusCode != http.StatusOK {
			t.Fatalf("just after one engine of two died: %d %s", got.StatusCode, got.Bytes)
		}
	}
	stack.Eventually(t, 5*time.Second, "the dead engine to be left out", func() bool {
		return s.Metric("tollgate_engine_up", "engine", a) == 0
	})
	health := s.Do(s.HTTP1, http.MethodGet, "/health", "")
	if health.StatusCode != http.StatusOK || health.JSON()["status"] != "degraded" {
		t.Errorf("health with one of two: %d %s", health.StatusCode, health.Bytes)
	}
	for range 20 {
		if got := s.Post("/v1/chat/completions", scripted(1, `"tokens":2`)); got.StatusCode != http.StatusOK {
			t.Fatalf("with one engine of two: %d %s", got.StatusCode, got.Bytes)
		}
	}
}
