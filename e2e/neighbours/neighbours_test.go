package neighbours_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

const (
	rounds    = 4   // pairs of a round under attack and one under a harmless load
	perRound  = 50  // requests of the honest key in each
	worst     = 3.0 // how many times its latency may grow
	noise     = 5 * time.Millisecond
	attempts  = 3
	bodiesMiB = 512 // request.max_inflight_body_mb's default
)

// simOptions: prompts may be as large as bodies.
var simOptions = vllmsim.Options{MaxModelLen: 64 << 20}

// TestNeighbours: whatever one client does, every request of another key
// succeeds, about as fast as beside a harmless client that sends as much; and
// what the attack holds stays within its bound of memory.
func TestNeighbours(t *testing.T) {
	up := stack.StartUpstream(t, "", simOptions)
	s := stack.Start(t, stack.Options{Engine: up.Addr, Keys: `[
  {"key": "` + honest + `", "id": "honest", "user": "honest"},
  {"key": "` + attacker + `", "id": "attacker", "user": "attacker"},
  {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}]`})
	c := newClient()
	t.Cleanup(c.CloseIdleConnections)
	ask(t, s, c, perRound, "warm up")
	idle := memoryOf(t, s)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			var under, beside []time.Duration
			for try := 1; ; try++ {
				under, beside = compare(t, s, up, c, a)
				if t.Failed() || growth(under, beside) <= worst {
					break
				}
				t.Logf("attempt %d: p95 %v under attack, %v beside a harmless load", try, p95(under), p95(beside))
				if try == attempts {
					t.Errorf("p95 is %v under attack and %v beside a harmless load of the same size, %d times in a row", p95(under), p95(beside), attempts)
					break
				}
			}
			t.Logf("p95 %v under attack, %v beside a harmless load", p95(under), p95(beside))
			for name, peak := range memoryOf(t, s) {
				grown := (peak.peak - idle[name].now) >> 20
				if grown > 2*bodiesMiB+100 {
					t.Errorf("%s grew by %d MiB", name, grown)
				}
				t.Logf("%s grew by %d MiB at most", name, grown)
			}
			stack.Eventually(t, 20*time.Second, "memory of bodies to be given back", func() bool {
				return s.Metric("tollgate_body_bytes_inflight") == 0
			})
		})
	}
}

// TestManyKeysTogether: keys that fill the whole memory for bodies between them
// are refused, an ordinary request of one that does not is served.
func TestManyKeysTogether(t *testing.T) {
	const (
		limit = 128 // MiB
		many  = 5   // more than there are quarters
	)
	var keys strings.Builder
	for i := range many {
		fmt.Fprintf(&keys, `{"key": "%s-%d", "id": "a%d", "user": "a"}, `, attacker, i, i)
	}
	s := stack.Start(t, stack.Options{
		Config: "request: {max_inflight_body_mb: 128}",
		Keys:   "[" + keys.String() + `{"key": "` + honest + `", "id": "honest", "user": "honest"}, {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}]`,
	})
	c := newClient()
	t.Cleanup(c.CloseIdleConnections)
	ask(t, s, c, 10, "nobody")
	idle := memoryOf(t, s)
	f := &field{s: s}
	during(t, func(ctx context.Context) {
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() { unfinishedOf(ctx, f, fmt.Sprintf("%s-%d", attacker, i), 20) })
		}
		all.Wait()
	}, func() []time.Duration {
		stack.Eventually(t, 30*time.Second, "the memory for bodies to be full", func() bool {
			return s.Metric("tollgate_body_refusals_total", "reason", "total") > 0
		})
		return ask(t, s, c, 2*perRound, "five keys together")
	})
	for name, peak := range memoryOf(t, s) {
		grown := (peak.peak - idle[name].now) >> 20
		if grown > 2*limit+100 {
			t.Errorf("%s grew by %d MiB", name, grown)
		}
		t.Logf("%s grew by %d MiB at most", name, grown)
	}
}

// compare measures the honest key in turns: under the attack, and beside a
// harmless client that makes as many requests with as many bytes in as long a
// time.
func compare(t *testing.T, s *stack.Stack, up *stack.Upstream, c *http.Client, a attack) (under, beside []time.Duration) {
	t.Helper()
	for range rounds {
		f := &field{s: s, up: up}
		began := time.Now()
		under = append(under, during(t, func(ctx context.Context) { a.run(ctx, f) }, func() []time.Duration { return ask(t, s, c, perRound, a.name) })...)
		took := time.Since(began)
		beside = append(beside, during(t, func(ctx context.Context) {
			if !a.still {
				harmless(ctx, s, f.requests.Load(), f.bytes.Load(), took)
			}
		}, func() []time.Duration { return ask(t, s, c, perRound, "a harmless load") })...)
		if t.Failed() {
			break
		}
	}
	return under, beside
}

// during runs load while work is done.
func during(t *testing.T, load func(context.Context), work func() []time.Duration) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { load(ctx) })
	defer done.Wait()
	defer cancel()
	pause(ctx, 200*time.Millisecond) // the attack must have begun
	return work()
}

// harmless sends good requests, so many and with so many bytes in all, spread
// over a time.
func harmless(ctx context.Context, s *stack.Stack, requests, bytes int64, over time.Duration) {
	if requests == 0 {
		return
	}
	c := newClient()
	defer c.CloseIdleConnections()
	body := `{"model":"tiny","stream":true,"max_tokens":1,"messages":[{"role":"user","content":"hi"}],"user":"` +
		strings.Repeat("x", int(bytes/requests)) + `"}`
	f := &field{s: s}
	gap := max(over/time.Duration(requests), 100*time.Microsecond)
	tick := time.NewTicker(gap)
	defer tick.Stop()
	each(ctx, 8, func(int) error {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		return f.do(ctx, c, http.MethodPost, path, body, "Authorization", "Bearer "+attacker, "Content-Type", "application/json")
	})
}

// ask makes n ordinary requests of the honest key, two at a time. All of them
// must succeed.
func ask(t *testing.T, s *stack.Stack, c *http.Client, n int, beside string) []time.Duration {
	t.Helper()
	took := make([]time.Duration, n)
	var all sync.WaitGroup
	for worker := range 2 {
		all.Go(func() {
			for i := worker; i < n; i += 2 {
				began := time.Now()
				a := s.Do(c, http.MethodPost, path, chat(20), "Authorization", "Bearer "+honest)
				took[i] = time.Since(began)
				if a.StatusCode != http.StatusOK || a.Err != nil || !strings.Contains(string(a.Bytes), "[DONE]") {
					t.Errorf("beside %s another key got %d %.200s, %v", beside, a.StatusCode, a.Bytes, a.Err)
					return
				}
			}
		})
	}
	all.Wait()
	return took
}

func p95(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)*95/100].Round(10 * time.Microsecond)
}

// growth is how many times slower it is; what is below the noise of a shared
// machine counts as noise.
func growth(under, beside []time.Duration) float64 {
	return float64(p95(under)) / float64(max(p95(beside), noise))
}

// size is the memory of a process in bytes.
type size struct{ now, peak int64 }

func memoryOf(t *testing.T, s *stack.Stack) map[string]size {
	t.Helper()
	return map[string]size{"Envoy": memory(t, s.Envoy.PID()), "tollgate": memory(t, s.Tollgate.PID())}
}

func memory(t *testing.T, pid int) (m size) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		for field, to := range map[string]*int64{"VmRSS:": &m.now, "VmHWM:": &m.peak} {
			if v, ok := strings.CutPrefix(line, field); ok {
				kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				*to = kib << 10
			}
		}
	}
	return m
}
