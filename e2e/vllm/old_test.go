//go:build vllm

package vllm_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// requestAge is above the age at which streams have been seen to end Envoy.
const requestAge = 65 * time.Second

// oldRequests are as old as that when they end, and nothing begins meanwhile:
// their bodies come slowly, since the tiny model answers in no time. See
// e2e/lifetimes for every end that a simulated engine can give them.
func oldRequests(t *testing.T, h *host) {
	t.Helper()
	before := h.launcher.Child("envoy")
	const whole, streamed = `{"model":"tiny","max_tokens":50,` + hello + `}`, `{"model":"tiny","stream":true,"max_tokens":50,` + hello + `}`
	answers := []<-chan string{h.drip(whole, requestAge, true), h.drip(streamed, requestAge, true), h.drip(whole, requestAge, false)}
	for i, answer := range answers {
		id := <-answer
		if leaves := i == 2; leaves != (id == "") {
			t.Errorf("request %d ended with the id %q", i, id)
		}
		if id == "" {
			continue
		}
		rec := h.Settled(id)
		if rec.Reason != ledger.Complete || rec.Quality != ledger.Exact || rec.Counts.Completion == 0 {
			t.Errorf("request %d: %s %s, %d tokens", i, rec.Reason, rec.Quality, rec.Counts.Completion)
		}
	}
	if a := h.Post(chat, withT); a.StatusCode != http.StatusOK {
		t.Errorf("the next request: %d %.300s", a.StatusCode, a.Bytes)
	}
	after := h.launcher.Child("envoy")
	log, _ := os.ReadFile(h.Path("logs/envoy.log"))
	if after.PID != before.PID || after.Restarts != before.Restarts || strings.Contains(string(log), "Caught ") {
		t.Errorf("Envoy has died: %+v, then %+v", before, after)
	}
}

// drip sends a body for so long, then its end, or leaves; the request's id comes
// when an answer was read to its end, and "" otherwise.
func (h *host) drip(body string, lasts time.Duration, ends bool) <-chan string {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	from, to := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+chat, from)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	go func() {
		_, _ = io.WriteString(to, body[:1])
		for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
			_, _ = io.WriteString(to, strings.Repeat(" ", 1<<10)) // above the least rate of arrival
		}
		if !ends {
			cancel()
			_ = to.CloseWithError(context.Canceled)
			return
		}
		_, _ = io.WriteString(to, body[1:])
		_ = to.Close()
	}()
	answer := make(chan string, 1)
	go func() {
		defer close(answer)
		defer cancel()
		resp, err := h.HTTP1.Do(req)
		if err != nil {
			return
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode == http.StatusOK {
			answer <- resp.Header.Get("x-request-id")
		}
	}()
	return answer
}
