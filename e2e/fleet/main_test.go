// Package fleet_test proves through the real Envoy what several engines promise:
// a request reaches only engines that serve its model, and engines come and go
// while requests run.
//
// PROOF=1 runs the long forms.
package fleet_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// scale is the size of a test: the short or the long one.
func scale(short, proof int) int {
	if os.Getenv("PROOF") != "" {
		return proof
	}
	return short
}

// chat is a request for a model; sim is the inside of its script.
func chat(model string, stream bool, tokens int, sim string) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":%d,"messages":[{"role":"user","content":"count for me"}],"sim":{%s}}`, model, stream, tokens, sim)
}

func ask(s *stack.Stack, model string) *stack.Answer {
	return s.Post(stack.ChatPath, chat(model, false, 3, ""))
}

// wait is how long a condition may take that is reached in well under a second.
const wait = 10 * time.Second

// served waits until the edge serves a model.
func served(t *testing.T, s *stack.Stack, model string) time.Duration {
	t.Helper()
	began := time.Now()
	stack.Eventually(t, wait, model+" to be served", func() bool { return ask(s, model).StatusCode == http.StatusOK })
	return time.Since(began)
}

func add(t *testing.T, s *stack.Stack, address string) {
	t.Helper()
	if a := s.Admin(http.MethodPost, "/admin/engines", fmt.Sprintf(`{"address":%q}`, address)); a.StatusCode != http.StatusCreated {
		t.Fatalf("add %s: %d %s", address, a.StatusCode, a.Bytes)
	}
}

// up reports whether the gateway believes in an engine.
func up(s *stack.Stack, address string) bool {
	return strings.Contains(string(s.Admin(http.MethodGet, "/admin/engines", "").Bytes), address) && s.Metric("tollgate_engine_up", "engine", address) == 1
}

// three are engines of different models: A m1, B m1 and m2, C m3 and an adapter of it.
func three(t *testing.T, config string) (a, b, c *stack.Engine, s *stack.Stack) {
	t.Helper()
	a = stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	b = stack.NewEngine(t, vllmsim.Options{Models: []string{"m1", "m2"}})
	c = stack.NewEngine(t, vllmsim.Options{Models: []string{"m3"}, EnableLoRA: true, Adapters: map[string]string{"legal": "/nowhere"}})
	s = stack.Start(t, stack.Options{Engine: a.Addr, Config: fmt.Sprintf("engines: [%q, {address: %q, weight: 1}]\n%s", b.Addr, c.Addr, config)})
	for _, model := range []string{"m1", "m2", "m3", "legal"} {
		served(t, s, model)
	}
	return a, b, c, s
}

// crowd calls do so many times, several at once.
func crowd(times, at int, do func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range at {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range times {
		next <- i
	}
	close(next)
	wg.Wait()
}

// served200 is the model in an answer.
func served200(t *testing.T, resp *http.Response) string {
	t.Helper()
	var answer struct{ Model string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.Model
}
