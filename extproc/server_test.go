package extproc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/extproc"
	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-aaaaaaaaaaaaaaaaaaaaaaaa"

func TestOnlyWhatARequestNeedsIsSwitchedOn(t *testing.T) {
	b := newBench(t)
	s := b.open(b.ticket())
	got := s.say(requestHeaders()).GetModeOverride()
	if got.GetRequestBodyMode() != filterv3.ProcessingMode_STREAMED || got.GetResponseHeaderMode() != filterv3.ProcessingMode_SEND ||
		got.GetResponseBodyMode() != filterv3.ProcessingMode_NONE {
		t.Errorf("at the request headers: %v", got)
	}
	s.say(requestBody(chat))
	if got := s.say(responseHeaders("200", "text/event-stream", "via_upstream")).GetModeOverride(); got.GetResponseBodyMode() != filterv3.ProcessingMode_STREAMED {
		t.Errorf("a stream: %v", got)
	}
	refused := b.upTo()
	if got := refused.say(responseHeaders("404", "application/json", "via_upstream")).GetModeOverride(); got.GetResponseBodyMode() != filterv3.ProcessingMode_NONE {
		t.Errorf("an error pays for its body: %v", got)
	}
}

func TestVLLMGetsWhatWasChecked(t *testing.T) {
	b := newBench(t)
	s := b.open(b.ticket())
	s.say(requestHeaders())
	common := s.say(requestBody(chat)).GetRequestBody().GetResponse()
	body := common.GetBodyMutation().GetBody()
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"model": "tiny", "stream": true, "messages": []any{map[string]any{"role": "user", "content": "hi"}},
		"stream_options": map[string]any{"include_usage": true, "continuous_usage_stats": true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestBodiesOfManyRequestsAreNotMixedUp(t *testing.T) {
	b := newBench(t)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 40 {
				text := strings.Repeat(string(rune('a'+worker)), 1+(worker*40+i)*997%200_000)
				body := `{"model":"tiny","stream":true,"messages":[{"role":"user","content":"` + text + `"}]}`
				if i%5 == 4 { // refused after it was rewritten
					body = strings.Replace(body, "tiny", "huge", 1)
				}
				s := b.open(b.ticket())
				s.say(requestHeaders())
				answer := s.say(requestBody(body))
				got := string(answer.GetRequestBody().GetResponse().GetBodyMutation().GetBody())
				if i%5 == 4 {
					if answer.GetImmediateResponse() == nil {
						t.Errorf("not refused: %.200v", answer)
					}
				} else if want := `{"stream_options":{"include_usage":true,"continuous_usage_stats":true},` + body[1:]; got != want {
					t.Errorf("body %d of %d: got %d bytes, want %d, or others", i, worker, len(got), len(want))
				}
				_ = s.CloseSend()
				_, _ = s.Recv()
			}
		})
	}
	all.Wait()
}

func TestTheEndIsReleasedWhenItIsRecorded(t *testing.T) {
	b := newBench(t)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	out := s.say(responseBody(event("1"), false)).GetResponseBody().GetResponse().GetBodyMutation().GetBody()
	if strings.Contains(string(out), "usage") || !strings.Contains(string(out), `"content":"x"`) {
		t.Errorf("the client sees %q", out)
	}
	final := `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}` + "\n\n"
	if m := s.say(responseBody(final, false)).GetResponseBody().GetResponse().GetBodyMutation(); !m.GetClearBody() {
		t.Errorf("the usage chunk is shown: %v", m)
	}
	if rec, err := b.book.Get(t.Context(), s.lease); err != nil || !rec.Open() {
		t.Errorf("settled before the end: %+v, %v", rec, err)
	}
	if m := s.say(responseBody("data: [DONE]\n\n", false)).GetResponseBody(); m.GetResponse() != nil {
		t.Errorf("the last event was changed: %v", m)
	}
	rec, err := b.book.Get(t.Context(), s.lease)
	if err != nil || rec.Reason != ledger.Complete || rec.Counts.Completion != 2 || rec.Counts.Prompt != 3 {
		t.Errorf("after the end: %+v, %v", rec, err)
	}
	s.say(responseBody("", true))
	_ = s.CloseSend()
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream's end: %v, want EOF", err)
	}
}

func TestAStreamThatEndsEarlyIsClosedOnce(t *testing.T) {
	b := newBench(t)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("5"), false))
	_ = s.CloseSend() // the client has gone
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream's end: %v, want EOF", err)
	}
	rec, err := b.book.Get(t.Context(), s.lease)
	if err != nil || rec.Reason != ledger.Aborted || rec.Counts.Completion != 5 || rec.Quality != ledger.Exact {
		t.Errorf("got %+v, %v", rec, err)
	}
	if got, _ := b.limits.Totals(t.Context()); got.Leases != 0 {
		t.Errorf("leases: %d", got.Leases)
	}
}

func TestACutEndsASilentStreamWithAnError(t *testing.T) {
	b := newBench(t)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("4"), false))
	b.gate.Cancel("r1")
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v, want UNAVAILABLE: a clean end would let the rest pass", err)
	}
	// The stream's own goroutine settles after the cut's status has gone out.
	deadline := time.Now().Add(30 * time.Second)
	for {
		rec, err := b.book.Get(t.Context(), s.lease)
		if err == nil && rec.Reason == ledger.Cancelled && rec.Counts.Completion == 4 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never settled: %+v, %v", rec, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestACutThatComesBeforeTheStream(t *testing.T) {
	b := newBench(t)
	s := b.open(b.ticket())
	b.gate.Cancel("r1")
	if err := s.Send(s.with(requestHeaders())); err != nil {
		t.Fatal(err)
	}
	for {
		out, err := s.Recv()
		if err == nil && out.GetImmediateResponse() == nil {
			continue // to the headers, before the cut could be written
		}
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want UNAVAILABLE", err)
		}
		break
	}
	deadline := time.Now().Add(30 * time.Second)
	for got, _ := b.limits.Totals(t.Context()); got.Leases != 0; got, _ = b.limits.Totals(t.Context()) {
		if time.Now().After(deadline) {
			t.Fatalf("leases: %d", got.Leases)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// broken is a claimer with a fault, once.
type broken struct {
	extproc.Claimer
	left int
}

func (c *broken) Claim(ctx context.Context, leaseID string) (*admission.Session, error) {
	if c.left--; c.left >= 0 {
		panic("a fault of ours, " + leaseID)
	}
	return c.Claimer.Claim(ctx, leaseID)
}

func panics(t *testing.T, reg prometheus.Gatherer) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.GetName() == "stream_panics_total" {
			return m.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

func TestAPanicEndsOneStreamOnly(t *testing.T) {
	b := newBench(t)
	reg := prometheus.NewRegistry()
	b.serve(&broken{b.gate, 1}, reg)
	s := b.open(b.ticket())
	if err := s.Send(s.with(requestHeaders())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Internal || strings.Contains(err.Error(), s.lease) {
		t.Errorf("got %v, want INTERNAL without a word of why", err)
	}
	if n := panics(t, reg); n != 1 {
		t.Errorf("panics counted: %v", n)
	}
	s = b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("5"), true))
}

func TestWhatIsRefusedHere(t *testing.T) {
	for name, c := range map[string]struct {
		ticket bool
		body   string
		status int32
		kept   int64 // requests that still count
	}{
		"no ticket":     {false, "", 503, 0},
		"no JSON":       {true, "{", 400, 1},
		"another model": {true, strings.Replace(chat, "tiny", "huge", 1), 404, 1},
		"too many n":    {true, strings.Replace(chat, `"stream"`, `"n":9,"stream"`, 1), 400, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			lease := "0123456789abcdef"
			if c.ticket {
				lease = b.ticket()
			}
			s := b.open(lease)
			answer := s.say(requestHeaders())
			if c.ticket {
				answer = s.say(requestBody(c.body))
			}
			im := answer.GetImmediateResponse()
			if int32(im.GetStatus().GetCode()) != c.status || !strings.HasPrefix(im.GetDetails(), "tollgate_") || !json.Valid(im.GetBody()) {
				t.Errorf("got %v", answer)
			}
			_ = s.CloseSend()
			_, _ = s.Recv()
			if got, _ := b.limits.Totals(t.Context()); got.Leases != 0 || got.Reserved != 0 {
				t.Errorf("left over: %+v", got)
			}
			view, err := b.limits.Key(t.Context(), "a", limit.Caps{})
			if err != nil || view.RequestsWindow != c.kept {
				t.Errorf("requests that count: %d, want %d (%v)", view.RequestsWindow, c.kept, err)
			}
			if b.bodies.Used() != 0 {
				t.Errorf("body bytes are still held: %d", b.bodies.Used())
			}
		})
	}
}

func TestALocalReplyPasses(t *testing.T) {
	b := newBench(t)
	s := b.open("")
	if got := s.say(responseHeaders("413", "text/plain", "request_payload_too_large")); got.GetResponseHeaders() == nil {
		t.Errorf("got %v", got)
	}
	if got := s.say(responseBody("too large", true)); got.GetResponseBody() == nil || got.GetResponseBody().GetResponse() != nil {
		t.Errorf("got %v", got)
	}
}

func TestNoAnswerPassesToARequestThatWasNotChecked(t *testing.T) {
	for _, status := range []string{"200", "302", "400", "500"} {
		b := newBench(t)
		s := b.open(b.ticket())
		s.say(requestHeaders())
		if err := s.Send(s.with(responseHeaders(status, "application/json", "via_upstream"))); err != nil {
			t.Fatal(err)
		}
		if out, err := s.Recv(); err == nil {
			t.Errorf("an answer of %s passed: %v", status, out)
		}
	}
}
