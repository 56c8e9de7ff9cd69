package vllmsim_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// live is an answer that is being read.
type live struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Reader
	stop context.CancelFunc
}

// open posts a body and returns when the headers are there.
func open(t *testing.T, srv *httptest.Server, path, requestID, body string) *live {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Request-Id", requestID)
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &live{t, resp, bufio.NewReader(resp.Body), cancel}
}

// events reads n events.
func (l *live) events(n int) []string {
	l.t.Helper()
	out := make([]string, 0, n)
	var event strings.Builder
	for len(out) < n {
		line, err := l.in.ReadString('\n')
		if err != nil {
			l.t.Fatalf("read event %d of %d: %v", len(out)+1, n, err)
		}
		event.WriteString(line)
		if line == "\n" {
			out = append(out, event.String())
			event.Reset()
		}
	}
	return out
}

// rest reads to the end.
func (l *live) rest() (string, error) {
	b, err := io.ReadAll(l.in)
	return string(b), err
}

// ended waits for the end of a request and returns its truth.
func ended(t *testing.T, sim *vllmsim.Sim, requestID string) vllmsim.Truth {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	truth, err := sim.WaitEnd(ctx, requestID)
	if err != nil {
		t.Fatal(err)
	}
	return truth
}

const chatPath = "/v1/chat/completions"

// chat is a body with that many tokens of answer and more fields.
func chat(more string) string {
	return `{"messages":[{"role":"user","content":"count these five words please"}]` + more + `}`
}

const running = `,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`

// chatPrompt is how many tokens chat has: five words and the template.
const chatPrompt = 5 + 5 + 3
