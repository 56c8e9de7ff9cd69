package extproc_test

import (
	"testing"
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
