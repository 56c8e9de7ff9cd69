package extproc_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/internal/ledger"
)

// TestAKeyWithAQuotaSeesNoMoreThanOthers sends the last events in one piece, as a
// proxy in between joins them: what a client did not ask for is taken out all the
// same.
func TestAKeyWithAQuotaSeesNoMoreThanOthers(t *testing.T) {
	const final, done = `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}` + "\n\n", "data: [DONE]\n\n"
	b := benchOf(t, `[{"key": "`+key+`", "id": "a", "user": "ann", "quota": 100000}]`)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("1"), false))
	m := s.say(responseBody(final+done, false)).GetResponseBody().GetResponse().GetBodyMutation()
	if m == nil || string(m.GetBody()) != done {
		t.Errorf("the client sees %v, want %q in place of %q", m, done, final+done)
	}
}

// TestAQuotaHoldsForWhatNobodyCanRead: what cannot be read counts by its size, and
// where nothing is left the answer breaks off with the chunk before.
func TestAQuotaHoldsForWhatNobodyCanRead(t *testing.T) {
	gzip := "\x1f\x8b" + strings.Repeat("\x00\n\n", 300)
	for name, c := range map[string]struct{ kind, coding, chunk string }{
		"an announced coding":        {"text/event-stream", "gzip", gzip},
		"a coding without its name":  {"text/event-stream", "", gzip},
		"a stream that says JSON":    {"application/json", "", strings.Repeat(event("-1"), 10)},
		"JSON that never gets there": {"application/json", "", `{"a":"` + strings.Repeat("x", 900)},
	} {
		b := benchOf(t, `[{"key": "`+key+`", "id": "a", "user": "ann", "quota": 2000}]`)
		s := b.upTo()
		headers := responseHeaders("200", c.kind, "via_upstream")
		if c.coding != "" {
			h := headers.GetResponseHeaders().GetHeaders()
			h.Headers = append(h.Headers, head("content-encoding", c.coding).GetHeaders().GetHeaders()...)
		}
		s.say(headers)
		passed := int64(0)
		for range 100 {
			mutation := s.say(responseBody(c.chunk, false)).GetResponseBody().GetResponse().GetBodyMutation()
			if mutation.GetClearBody() {
				break
			}
			if mutation == nil {
				passed += int64(len(c.chunk))
				continue
			}
			passed += int64(len(mutation.GetBody()))
		}
		if passed < 2000 || passed > 4*2000 {
			t.Errorf("%s: %d bytes passed with a quota of 2000 tokens", name, passed)
		}
		rec, err := b.book.Get(t.Context(), s.lease)
		if err != nil || rec.Reason != ledger.Quota || rec.Counts.Prompt+rec.Counts.Completion > 2000 {
			t.Errorf("%s: settled as %+v, %v", name, rec, err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: the end is %v, want a cut", name, err)
		}
	}
}

// TestAFirstEventInPiecesIsNotCounted: as long as an event stream can still be read
// its size says nothing.
func TestAFirstEventInPiecesIsNotCounted(t *testing.T) {
	b := benchOf(t, `[{"key": "`+key+`", "id": "a", "user": "ann", "quota": 400}]`)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(`data: {"pad":"`+strings.Repeat("x", 4000), false))
	m := s.say(responseBody(`","choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`+"\n\n", false))
	if got := string(m.GetResponseBody().GetResponse().GetBodyMutation().GetBody()); !strings.Contains(got, `"content":"x"`) {
		t.Errorf("the event became %q", got)
	}
	s.say(responseBody("data: [DONE]\n\n", true))
	if rec, err := b.book.Get(t.Context(), s.lease); err != nil || rec.Reason != ledger.Complete {
		t.Errorf("settled as %+v, %v", rec, err)
	}
}

// TestAStoreThatCannotTellIsNoSpentQuota: the stream is cut like every other that
// cannot be decided, and charged for what was delivered.
func TestAStoreThatCannotTellIsNoSpentQuota(t *testing.T) {
	b := benchOf(t, `[{"key": "`+key+`", "id": "a", "user": "ann", "quota": 100000}]`)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("1"), false))
	_ = b.limits.Close()
	if err := s.Send(s.with(responseBody(event("900"), false))); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, %v; want a cut", m, err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		rec, err := b.book.Get(t.Context(), s.lease)
		if err == nil && rec.Reason == ledger.Aborted && rec.Counts.Completion == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("settled as %+v, %v", rec, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
