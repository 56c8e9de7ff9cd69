package meter

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// chunk is an event of a chat stream with usage.
func chunk(text string, prompt, completion int) []byte {
	return []byte(`data: {"choices":[{"index":0,"delta":{"content":"` + text + `"}}],"usage":{"prompt_tokens":` + strconv.Itoa(prompt) + `,"completion_tokens":` + strconv.Itoa(completion) + `}}` + "\n\n")
}

const done = "data: [DONE]\n\n"

// stream is an event stream of n chunks, gap apart, with its end.
func stream(n int, gap time.Duration) *stack.Reply {
	r := &stack.Reply{ContentType: "text/event-stream", Gap: gap}
	for i := range n {
		r.Pieces = append(r.Pieces, chunk("word", 7, i+1))
	}
	r.Pieces = append(r.Pieces, []byte(done))
	return r
}

// TestModule tests the library in a real Envoy.
func TestModule(t *testing.T) {
	lib := library(t)
	r := start(t, lib, "process")
	p := r.listen("welcome 1", true)

	t.Run("a stream is counted, stripped and on record before its end", func(t *testing.T) {
		lease := r.lease()
		got := r.get(ask{lease: lease, plan: "1 chat 1 1 r - -", headers: "x-ratelimit-limit-requests: 5\naccess-control-allow-origin", reply: stream(3, time.Millisecond)})
		want := strings.Repeat(`data: {"choices":[{"index":0,"delta":{"content":"word"}}]}`+"\n\n", 3) + done
		if got.err != nil || got.status != 200 || got.body != want {
			t.Fatalf("got %+v", got)
		}
		e := record(t, p.find("e "+lease))
		if e["why"] != "end" || e["end"] != "done" || e["status"] != "200" || e["prompt"] != "7" || e["completion"] != "3" || e["bits"] != "S" || e["details"] != "via_upstream" || e["engine"] != r.upstream.Addr {
			t.Errorf("the record is %v", e)
		}
		if got.header.Get("x-ratelimit-limit-requests") != "5" || got.header.Get("x-accel-buffering") != "no" || got.header.Get("x-by") == "" {
			t.Errorf("the headers are %v", got.header)
		}
	})
	t.Run("an answer without a plan is refused", func(t *testing.T) {
		lease := r.lease()
		if got := r.get(ask{lease: lease, reply: stream(3, 0)}); got.status != 503 {
			t.Errorf("got %+v", got)
		}
		p.wait("x " + lease)
	})
}
