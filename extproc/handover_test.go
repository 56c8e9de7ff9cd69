package extproc_test

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
)

// meters is the link to meters of which one is connected.
type meters struct {
	mu  sync.Mutex
	cut []string
}

func (*meters) Connected(instance string) bool { return instance == "2a-1" }

func (m *meters) Cut(instance, lease string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = append(m.cut, instance+" "+lease)
}

// metered opens a stream whose request the meter of that instance has registered.
func (b *bench) metered(instance string) *stream {
	b.t.Helper()
	s := b.open(b.ticket())
	s.meter = instance
	return s
}

// told is what an answer tells the meter.
func told(out *extprocv3.ProcessingResponse) map[string]string {
	fields := map[string]string{}
	for name, v := range out.GetDynamicMetadata().GetFields()["tollgate.meter"].GetStructValue().GetFields() {
		fields[name] = v.GetStringValue()
	}
	return fields
}

// over checks that the stream has ended cleanly, and that the request lives on.
func (s *stream) over(b *bench) {
	b.t.Helper()
	if m, err := s.Recv(); !errors.Is(err, io.EOF) {
		b.t.Errorf("the stream goes on: %v, %v", m, err)
	}
	if got := b.gate.HandedOver(); got != 1 {
		b.t.Errorf("%d requests are handed over, want 1", got)
	}
}

func TestAnAnswerIsHandedOverAtTheEndOfTheBody(t *testing.T) {
	b := newBench(t)
	s := b.metered("2a-1")
	mode := s.say(requestHeaders()).GetModeOverride()
	want := &filterv3.ProcessingMode{RequestBodyMode: filterv3.ProcessingMode_STREAMED, ResponseHeaderMode: filterv3.ProcessingMode_SKIP, ResponseTrailerMode: filterv3.ProcessingMode_SKIP}
	if mode.String() != want.String() {
		t.Errorf("mode %v, want %v", mode, want)
	}
	out := s.say(requestBody(chat))
	plan := told(out)
	if !strings.HasPrefix(plan["headers"], "x-ratelimit-limit-requests: 600\n") || !strings.HasSuffix(plan["headers"], "access-control-allow-origin\naccess-control-allow-credentials\naccess-control-expose-headers\n") {
		t.Errorf("headers %q", plan["headers"])
	}
	delete(plan, "headers")
	if diff := cmp.Diff(map[string]string{"plan": "1 chat 1 1 fr - -"}, plan); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if out.GetRequestBody().GetResponse().GetBodyMutation().GetBody() == nil {
		t.Error("the checked body is not in the answer")
	}
	s.over(b)
	rec, err := b.book.Get(t.Context(), s.lease)
	if err != nil || rec.Meter != "2a-1" || !rec.Open() {
		t.Errorf("row %+v, %v", rec, err)
	}
	if n := b.gate.Cancel("r1"); n != 1 {
		t.Errorf("%d requests cancelled", n)
	}
	b.meters.mu.Lock()
	defer b.meters.mu.Unlock()
	if diff := cmp.Diff([]string{"2a-1 " + s.lease}, b.meters.cut); diff != "" {
		t.Errorf("cut (-want +got):\n%s", diff)
	}
}

// The end of a body may come after all of it: the meter is told then, when nothing can
// be refused any more.
func TestThePlanComesWithTheEndOfTheBody(t *testing.T) {
	piece := func(body string) *extprocv3.ProcessingRequest {
		m := requestBody(body)
		m.GetRequestBody().EndOfStream = false
		return m
	}
	trailers := &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestTrailers{RequestTrailers: &extprocv3.HttpTrailers{}}}
	for name, end := range map[string]*extprocv3.ProcessingRequest{"an empty piece": requestBody(""), "white space": requestBody(" \n"), "trailers": trailers} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			s := b.metered("2a-1")
			s.say(requestHeaders())
			for _, part := range []string{chat[:20], chat[20:]} {
				if got := told(s.say(piece(part))); len(got) > 0 {
					t.Errorf("the meter is told %v before the end", got)
				}
			}
			if got := told(s.say(end)); got["plan"] == "" {
				t.Error("the meter is not told")
			}
			s.over(b)
		})
	}
	b := newBench(t)
	s := b.metered("2a-1")
	s.say(requestHeaders())
	s.say(piece(chat))
	if got := s.say(requestBody("more")); got.GetImmediateResponse() == nil || len(told(got)) > 0 || b.gate.HandedOver() != 0 {
		t.Errorf("a body that goes on after its end: %v", got)
	}
}

// An answer that no connected meter has is metered by tollgate, which says so to the
// one that registered it.
func TestAnUnknownMeterKeepsItsHandsOff(t *testing.T) {
	b := newBench(t)
	s := b.metered("2a-9")
	out := s.say(requestHeaders())
	mode := out.GetModeOverride()
	if mode.GetResponseHeaderMode() != filterv3.ProcessingMode_SEND || mode.GetResponseTrailerMode() != filterv3.ProcessingMode_SEND {
		t.Errorf("mode %v", mode)
	}
	if diff := cmp.Diff(map[string]string{"plan": "0"}, told(out)); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	s.say(requestBody(chat))
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("2"), false))
	s.say(responseBody("data: [DONE]\n\n", true))
	if rec, err := b.book.Get(t.Context(), s.lease); err != nil || rec.Reason != ledger.Complete || rec.Meter != "" {
		t.Errorf("row %+v, %v", rec, err)
	}
}

// A meter that has seen the end of the stream before the answer came has nothing to
// be told: the request is over, and nobody waits for a word on it.
func TestAMeterMayHaveSeenTheEndBefore(t *testing.T) {
	b := newBench(t)
	s := b.metered("2a-1")
	s.say(requestHeaders())
	if err := b.gate.MeterGone(t.Context(), s.lease); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(s.with(requestBody(chat))); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v, %v", m, err)
	}
	rec, err := b.book.Get(t.Context(), s.lease)
	if err != nil || rec.Open() {
		t.Errorf("row %+v, %v", rec, err)
	}
	for end := time.Now().Add(5 * time.Second); len(b.gate.Live()) > 0; <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("live: %+v", b.gate.Live())
		}
	}
}

func TestAQuotaComesWithThePlan(t *testing.T) {
	b := benchOf(t, `[{"key": "`+key+`", "id": "a", "user": "ann", "quota": 1000}]`)
	s := b.metered("2a-1")
	s.say(requestHeaders())
	plan := told(s.say(requestBody(chat)))
	words := strings.Fields(plan["plan"])
	if len(words) != 7 || words[5] == "-" || words[6] == "-" || !strings.Contains(plan["spent"], "insufficient_quota") {
		t.Errorf("plan %q, last event %q", plan["plan"], plan["spent"])
	}
	s.over(b)
}
