package extproc_test

import (
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestAnAnswerToAnUncheckedRequestIsNotPassedOn: whatever made the engine
// answer a request that was never checked, its answer is cut, not given away.
func TestAnAnswerToAnUncheckedRequestIsNotPassedOn(t *testing.T) {
	b := newBench(t)
	s := b.open(b.ticket())
	s.say(requestHeaders())
	if err := s.Send(s.with(responseHeaders("200", "application/json", "via_upstream"))); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, %v; want an error, which cuts the client", out, err)
	}
}

// TestA503OfTheEngineSaysWhenToRetry: one that says so itself is not answered
// for it.
func TestA503OfTheEngineSaysWhenToRetry(t *testing.T) {
	for name, c := range map[string]struct {
		status, own, want string
	}{
		"without":          {"503", "", "1"},
		"with its own":     {"503", "7", ""},
		"another status":   {"500", "", ""},
		"a refusal of its": {"429", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newBench(t).upTo()
			m := responseHeaders(c.status, "application/json", "via_upstream")
			if c.own != "" {
				h := m.GetResponseHeaders().GetHeaders()
				h.Headers = append(h.Headers, &corev3.HeaderValue{Key: "retry-after", RawValue: []byte(c.own)})
			}
			if got := setHeader(s.say(m), "retry-after"); got != c.want {
				t.Errorf("retry-after: got %q, want %q", got, c.want)
			}
		})
	}
}

// setHeader is the value of a header that an answer to response headers sets.
func setHeader(out *extprocv3.ProcessingResponse, name string) string {
	for _, o := range out.GetResponseHeaders().GetResponse().GetHeaderMutation().GetSetHeaders() {
		if o.GetHeader().GetKey() == name {
			return string(o.GetHeader().GetRawValue()) + o.GetHeader().GetValue()
		}
	}
	return ""
}

// TestABodyThatNeverEndsGivesItsMemoryBack: what has come of it is held while
// its stream lives, more than was announced included, and no longer.
func TestABodyThatNeverEndsGivesItsMemoryBack(t *testing.T) {
	for name, announced := range map[string]string{"no length": "", "a length": "300000"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			s := b.open(b.ticket())
			m := requestHeaders()
			if announced != "" {
				h := m.GetRequestHeaders().GetHeaders()
				h.Headers = append(h.Headers, &corev3.HeaderValue{Key: "content-length", RawValue: []byte(announced)})
			}
			s.say(m)
			if got := b.bodies.Used(); got != 0 {
				t.Errorf("%d bytes are held before any has come", got)
			}
			const piece = 64 << 10
			for i := range 4 {
				part := requestBody(`{"a":"` + strings.Repeat("x", piece))
				part.GetRequestBody().EndOfStream = false
				s.say(part)
				if got := b.bodies.Used(); got < int64(i+1)*piece {
					t.Errorf("%d bytes are held after %d have come", got, (i+1)*piece)
				}
			}
			_ = s.CloseSend() // the client has gone
			for end := time.Now().Add(10 * time.Second); b.bodies.Used() != 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d bytes are still held", b.bodies.Used())
				}
			}
		})
	}
}
