package extproc_test

import (
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"tollgate/extproc"
)

func piece(text string, end bool) *extprocv3.ProcessingRequest {
	m := requestBody(text)
	m.GetRequestBody().EndOfStream = end
	return m
}

func requestTrailers() *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestTrailers{RequestTrailers: &extprocv3.HttpTrailers{Trailers: &corev3.HeaderMap{}}}}
}

// long is a request of about n bytes.
func long(n int) string {
	return strings.Replace(chat, "hi", strings.Repeat("x", n), 1)
}

// begin opens a stream whose headers announce so many bytes; 0 says nothing.
func (b *bench) begin(announced int) *stream {
	b.t.Helper()
	s := b.open(b.ticket())
	m := requestHeaders()
	if announced > 0 {
		m.GetRequestHeaders().Headers.Headers = append(m.GetRequestHeaders().Headers.Headers,
			&corev3.HeaderValue{Key: "content-length", RawValue: []byte(itoa(announced))})
	}
	s.say(m)
	return s
}

func itoa(n int) string { return strconv.Itoa(n) }

func sentOn(a *extprocv3.ProcessingResponse) string {
	return string(a.GetRequestBody().GetResponse().GetBodyMutation().GetBody())
}

func held(a *extprocv3.ProcessingResponse) bool {
	return a.GetRequestBody().GetResponse().GetBodyMutation().GetClearBody()
}

func TestABodyInPiecesIsCollectedAndSentWhole(t *testing.T) {
	for name, c := range map[string]struct{ announced, size int }{
		"short": {0, 10}, "long": {0, 300_000}, "with a length": {len(long(300_000)), 300_000},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			body := long(c.size)
			s := b.begin(c.announced)
			if b.bodies.Used() != 0 {
				t.Errorf("%d bytes are held for a promise", b.bodies.Used())
			}
			for i := 0; len(body) > 40_000; i++ {
				if got := s.say(piece(body[:40_000], false)); !held(got) {
					t.Fatalf("piece %d: Envoy keeps it: %.100v", i, got)
				}
				body = body[40_000:]
			}
			if used := b.bodies.Used(); c.size > 40_000 && (used < int64(c.size)-40_000 || used > 2*int64(c.size)) {
				t.Errorf("%d bytes are held of a body of %d", used, c.size)
			}
			got := sentOn(s.say(piece(body, false)))
			if !strings.Contains(got, "continuous_usage_stats") || !strings.Contains(got, strings.Repeat("x", c.size)) && c.size > 10 {
				t.Errorf("sent on: %d bytes, %.200s", len(got), got)
			}
			// Complete by its own account: held until it has ended.
			if b.bodies.Used() == 0 {
				t.Error("a body that Envoy cannot let go costs nothing")
			}
			if got := s.say(piece("\r\n", true)); !held(got) {
				t.Errorf("white space after the body reaches the engine: %v", got)
			}
			if b.bodies.Used() != 0 {
				t.Errorf("%d bytes are held after the end", b.bodies.Used())
			}
		})
	}
}

func TestTrailersEndABody(t *testing.T) {
	b := newBench(t)
	s := b.begin(0)
	s.say(piece(chat, false))
	if got := s.say(requestTrailers()); got.GetRequestTrailers() == nil || b.bodies.Used() != 0 {
		t.Errorf("after a whole body: %v, %d bytes held", got, b.bodies.Used())
	}
	for name, text := range map[string]string{"no body": "", "half a body": chat[:20]} {
		s := b.begin(0)
		if text != "" {
			s.say(piece(text, false))
		}
		if got := s.say(requestTrailers()).GetImmediateResponse(); got.GetStatus().GetCode() != 400 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNothingMayFollowABody(t *testing.T) {
	b := newBench(t)
	s := b.begin(0)
	s.say(piece(chat, false))
	if got := s.say(piece("{}", true)).GetImmediateResponse(); got.GetStatus().GetCode() != 400 {
		t.Errorf("got %v", got)
	}
	_ = s.CloseSend()
	_, _ = s.Recv()
	if got, _ := b.limits.Totals(t.Context()); got.Leases != 0 || got.Reserved != 0 || b.bodies.Used() != 0 {
		t.Errorf("left over: %+v, %d bytes", got, b.bodies.Used())
	}
}

func TestBodiesInMemoryAreBounded(t *testing.T) {
	const all = 1 << 20 // of newBench
	for name, c := range map[string]struct {
		holder string
		status int32
	}{"by other keys": {"other", 503}, "by the key itself": {"a", 429}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if got := b.bodies.Take(c.holder, all); got != extproc.Granted {
				t.Fatal(got)
			}
			s := b.begin(0)
			if got := s.say(piece(long(100_000), true)).GetImmediateResponse(); int32(got.GetStatus().GetCode()) != c.status || !strings.Contains(string(got.GetBody()), "again") {
				t.Errorf("whole: got %v, want %d", got, c.status)
			}
			s = b.begin(0)
			if got := s.say(piece(`{"model"`, false)).GetImmediateResponse(); int32(got.GetStatus().GetCode()) != c.status {
				t.Errorf("in pieces: got %v, want %d", got, c.status)
			}
			// Sent before Envoy had the refusal: no answer, and no error either.
			if err := s.Send(s.with(piece("more", false))); err != nil {
				t.Error(err)
			}
			_ = s.CloseSend()
			if _, err := s.Recv(); err == nil || !strings.Contains(err.Error(), "EOF") {
				t.Errorf("the stream's end: %v", err)
			}
			s = b.begin(0)
			if got := sentOn(s.say(piece(chat, true))); got == "" {
				t.Error("an ordinary request is refused because others send large ones")
			}
			if used := b.bodies.Used(); used != all {
				t.Errorf("%d bytes are held, want %d", used, all)
			}
		})
	}
}
