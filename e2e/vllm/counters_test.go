//go:build vllm

package vllm_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// draw is one of the mixed requests: what it is, and after how many events its
// client leaves (0: it stays).
type draw struct {
	path, body string
	n          int64
	leave      int
}

// mix is so many requests of all sorts, a third of them cut.
func mix(requests int, cut bool) []draw {
	var all []draw
	for i := range requests {
		d := draw{path: chat, n: 1, body: fmt.Sprintf(`{"model":"tiny","temperature":0.8,"seed":%d,"max_tokens":%d,"messages":[{"role":"user","content":"request %d"}]`, i, 5+i%40, i)}
		switch i % 4 {
		case 1:
			d.n = 2
			d.body += `,"n":2`
		case 2:
			d.path = completions
			d.body = fmt.Sprintf(`{"model":"tiny","max_tokens":%d,"temperature":0,"prompt":["the","count %d"]`, 3+i%20, i)
		case 3:
			d.body += `,"logprobs":true`
		}
		if i%2 == 0 {
			d.body += `,"stream":true`
		}
		if cut && i%3 == 0 {
			d.leave = 1 + i%7
			d.n = 1
			d.path = chat
			d.body = fmt.Sprintf(`{"model":"tiny","temperature":0.8,"max_tokens":900,"stream":true,"messages":[{"role":"user","content":"cut %d"}]`, i)
		}
		d.body += "}"
		all = append(all, d)
	}
	return all
}

// send sends one and returns its request id.
func (h *host) send(d draw) (id string, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+d.path, strings.NewReader(d.body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.HTTP1.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	id = resp.Header.Get("X-Request-Id")
	if resp.StatusCode != http.StatusOK {
		return id, fmt.Errorf("status %d", resp.StatusCode)
	}
	if d.leave == 0 {
		_, err = io.Copy(io.Discard, resp.Body)
		return id, err
	}
	in := bufio.NewReader(resp.Body)
	for events := 0; events < d.leave; {
		line, err := in.ReadString('\n')
		if err != nil {
			return id, nil // it was faster than its client could leave
		}
		if strings.HasPrefix(line, "data:") {
			events++
		}
	}
	return id, nil
}

// all sends them four at a time and returns what the ledger says in sum, the
// prompt as the engine counts it: once for every choice.
func (h *host) all(draws []draw) (prompt, generated int64, ends map[ledger.EndReason]int) {
	h.t.Helper()
	next := make(chan draw)
	var mu sync.Mutex
	var failed failures
	sent := map[string]draw{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for d := range next {
				id, err := h.send(d)
				if err != nil {
					failed.add("%s %s: %v", d.path, d.body, err)
				}
				mu.Lock()
				sent[id] = d
				mu.Unlock()
			}
		})
	}
	for _, d := range draws {
		next <- d
	}
	close(next)
	wg.Wait()
	for _, f := range failed.list {
		h.t.Error(f)
	}
	h.Idle(testLimit)
	h.quiet()
	ends = map[ledger.EndReason]int{}
	records := h.Records()
	for id, d := range sent {
		rec, found := records[id]
		if !found || rec.Open() {
			h.t.Errorf("request %s has no settled record: %+v", id, rec)
			continue
		}
		if rec.Quality != ledger.Exact {
			h.t.Errorf("request %s is %s, %s", id, rec.Reason, rec.Quality)
		}
		prompt += rec.Counts.Prompt * d.n
		generated += rec.Counts.Completion
		ends[rec.Reason]++
	}
	return prompt, generated, ends
}

// mixed compares the ledger with the engine's own counters: no drift over
// finished requests, and never more than the engine made over cut ones.
func mixed(t *testing.T, h *host) {
	t.Helper()
	for name, cut := range map[string]bool{"finished": false, "a third is cut": true} {
		h.quiet()
		promptBefore, generatedBefore := h.counters()
		prompt, generated, ends := h.all(mix(200, cut))
		promptAfter, generatedAfter := h.counters()
		promptTruth, truth := promptAfter-promptBefore, generatedAfter-generatedBefore
		t.Logf("%s: ends %v; prompt: ledger %d, engine %d; generated: ledger %d, engine %d, gap %d", name, ends, prompt, promptTruth, generated, truth, truth-generated)
		if !cut && (prompt != promptTruth || generated != truth) {
			t.Errorf("%s: drift: prompt %d, generated %d", name, prompt-promptTruth, generated-truth)
		}
		if prompt > promptTruth || generated > truth {
			t.Errorf("%s: the ledger has more than the engine made", name)
		}
		if cut && ends[ledger.ClientAbort] == 0 {
			t.Errorf("%s: nothing was cut: %v", name, ends)
		}
		if got := h.Metric("tollgate_unmetered_bytes_total"); got != 0 {
			t.Errorf("unmetered bytes: %v", got)
		}
	}
}
