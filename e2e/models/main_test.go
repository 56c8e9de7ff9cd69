// Package models_test proves through the real Envoy what names of models and the
// choice of an engine promise: who reaches which model, which shares, which
// fallbacks, and what the caches of engines are spared.
//
// PROOF=1 runs the long forms.
package models_test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
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

// wait is how long a condition may take that is reached in well under a second.
const wait = 10 * time.Second

// computed is how many prompt tokens the engine has computed: what it was asked
// for less what its cache had, by its own counters.
func computed(t *testing.T, e *stack.Engine) int {
	t.Helper()
	resp, err := http.Get("http://" + e.Addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	total := 0.0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, _, _ = strings.Cut(name, "{")
		n, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
		case name == "vllm:prefix_cache_queries_total":
			total += n
		case name == "vllm:prefix_cache_hits_total":
			total -= n
		}
	}
	return int(total)
}

// gateway starts a stack in front of some engines.
func gateway(t *testing.T, config, keys string, engines ...*stack.Engine) *stack.Stack {
	t.Helper()
	var more []string
	for _, e := range engines[1:] {
		more = append(more, fmt.Sprintf("%q", e.Addr))
	}
	s := stack.Start(t, stack.Options{Engine: engines[0].Addr, Keys: keys, Config: "engines: [" + strings.Join(more, ", ") + "]\n" + config})
	stack.Eventually(t, wait, "all engines", func() bool {
		for _, e := range engines {
			if s.Metric("tollgate_engine_up", "engine", e.Addr) != 1 {
				return false
			}
		}
		return true
	})
	return s
}

// chat is a request for a model; sim is the inside of its script.
func chat(model string, stream bool, tokens int, sim string) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":%d,"messages":[{"role":"user","content":"count for me"}],"sim":{%s}}`, model, stream, tokens, sim)
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
