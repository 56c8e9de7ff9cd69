package meter

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

const (
	done = "data: [DONE]\n\n"
	// plain is the plan of a chat stream of one choice that strips running usage;
	// bare strips nothing.
	plain = "1 chat 1 1 r - -"
	bare  = "1 chat 1 1 - - -"
)

// stream is an event stream of n chunks, gap apart, with its end.
func stream(n int, gap time.Duration) *stack.Reply {
	r := &stack.Reply{ContentType: "text/event-stream", Gap: gap}
	for i := range n {
		r.Pieces = append(r.Pieces, chunk("word", 7, i+1))
	}
	r.Pieces = append(r.Pieces, []byte(done))
	return r
}

// stripped is what a client gets of n chunks under [plain].
func stripped(n int) string {
	return strings.Repeat(`data: {"choices":[{"index":0,"delta":{"content":"word"}}]}`+"\n\n", n)
}

// TestModule tests the library in a real Envoy.
func TestModule(t *testing.T) {
	r := start(t, library(t), "process")
	p := r.listen("welcome 1", true)
	for _, c := range answers {
		t.Run(c.name, func(t *testing.T) { c.check(t, r, p) })
	}
	t.Run("engines that break off", func(t *testing.T) { testBroken(t, r, p) })
	t.Run("clients that leave", func(t *testing.T) { testLeft(t, r, p) })
	t.Run("what tollgate wants cut is cut", func(t *testing.T) { testCuts(t, r, p) })
	t.Run("a quota ends a stream where nothing is left of it", func(t *testing.T) { testQuota(t, r, p) })
	t.Run("a look at the configuration starts nothing", func(t *testing.T) { testValidation(t, r, p) })
}

// answerCase is an answer of the engine that passes, or does not.
type answerCase struct {
	name   string
	ask    ask
	status int
	body   string            // "": not looked at
	header map[string]string // of the answer; "-": there is none
	record map[string]string // of the e line; nil: neither e nor x; empty: x
}

func (c answerCase) check(t *testing.T, r *rig, p *peer) {
	t.Helper()
	a := c.ask
	lease := r.lease()
	if a.lease == "" {
		a.lease = lease
	}
	if a.lease == "-" {
		a.lease = ""
	}
	got := r.get(a)
	if got.err != nil || got.status != c.status || c.body != "" && got.body != c.body {
		t.Errorf("got %d %q %v", got.status, got.body, got.err)
	}
	for name, want := range c.header {
		if v := got.header.Get(name); v != want && (want != "-" || v != "") {
			t.Errorf("%s is %q", name, v)
		}
	}
	switch {
	case c.record == nil:
		p.never("e " + lease)
		p.never("x " + lease)
	case len(c.record) == 0:
		p.wait("x " + lease)
	default:
		e := record(t, p.wait("e "+lease))
		for name, want := range c.record {
			if e[name] != want {
				t.Errorf("%s is %q, not %q: %v", name, e[name], want, e)
			}
		}
	}
}

func reply(status int, contentType string, pieces ...string) *stack.Reply {
	r := &stack.Reply{Status: status, ContentType: contentType}
	for _, p := range pieces {
		r.Pieces = append(r.Pieces, []byte(p))
	}
	return r
}

func with(r *stack.Reply, name, value string) *stack.Reply {
	r.Header = http.Header{name: {value}}
	return r
}

const body = `{"choices":[{"index":0,"message":{"content":"word"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}`

var answers = []answerCase{
	{
		name: "a stream is counted and stripped", status: 200, body: stripped(3) + done,
		ask:    ask{plan: plain, headers: "x-ratelimit-limit-requests: 5\nx-vllm", reply: with(stream(3, time.Millisecond), "X-Vllm", "yes")},
		header: map[string]string{"x-ratelimit-limit-requests": "5", "x-vllm": "-", "x-accel-buffering": "no", "content-length": "-"},
		record: map[string]string{"why": "end", "end": "done", "status": "200", "prompt": "7", "completion": "3", "bits": "S", "deltas": "3", "details": "via_upstream"},
	},
	{
		name: "a body is counted and passes as it is", status: 200, body: body,
		ask:    ask{plan: bare, reply: reply(200, "application/json; charset=utf-8", body[:20], body[20:])},
		record: map[string]string{"why": "end", "end": "done", "prompt": "5", "completion": "2", "bits": "SF", "bytes": strconv.Itoa(len(body))},
	},
	{
		name: "a body that is none", status: 200,
		ask:    ask{plan: bare, reply: reply(200, "application/json")},
		record: map[string]string{"why": "end", "end": "open", "bits": "-"},
	},
	{
		name: "without a plan nothing passes", status: 503,
		ask: ask{reply: stream(3, 0)}, record: map[string]string{},
	},
	{
		name: "a plan that nobody understands is none", status: 503,
		ask: ask{plan: "2 chat", reply: stream(3, 0)}, record: map[string]string{},
	},
	{
		name: "without a lease nothing passes", status: 503,
		ask: ask{lease: "-", plan: plain, reply: stream(3, 0)},
	},
	{
		name: "what ext_proc meters is let alone", status: 200,
		ask: ask{plan: "0", reply: stream(1, 0)}, body: string(chunk("word", 7, 1)) + done,
	},
	{
		name: "an error of the engine passes", status: 429, body: `{"error":{}}`,
		ask:    ask{plan: plain, headers: "x-ratelimit-limit-requests: 5", reply: reply(429, "application/json", `{"error":{}}`)},
		header: map[string]string{"x-ratelimit-limit-requests": "5", "retry-after": "-"},
		record: map[string]string{"why": "refused", "status": "429", "prompt": "-1"},
	},
	{
		name: "an error in another shape gets the one that clients read", status: 404,
		ask:    ask{plan: "1 messages 1 1 a - -", reply: with(reply(404, "application/json", `{"detail":`, `"Not Found"}`), "Content-Length", "22")},
		body:   `{"type":"error","error":{"type":"not_found_error","message":"The model server answered: Not Found. Its model may not support this route."}}`,
		record: map[string]string{"why": "refused", "status": "404"},
	},
	{
		name: "a bare 503 of the engine says when to come again", status: 503,
		ask:    ask{plan: plain, reply: reply(503, "text/plain", "no")},
		header: map[string]string{"retry-after": "1"},
		record: map[string]string{"why": "refused", "status": "503"},
	},
	{
		name: "what nobody can read does not pass", status: 502,
		ask:    ask{plan: plain, headers: "x-ratelimit-limit-requests: 5", reply: reply(200, "text/html", "<p>")},
		header: map[string]string{"x-ratelimit-limit-requests": "5"},
		record: map[string]string{"why": "unreadable", "status": "502", "bytes": "0"},
	},
	{
		name: "a coded body passes unread", status: 200,
		ask:    ask{plan: plain, reply: with(reply(200, "application/json", "coded words"), "Content-Encoding", "br")},
		record: map[string]string{"why": "end", "end": "done", "bits": "EU", "bytes": "11", "anomalies": "0,0,0,0,0,0,0,0,1"},
	},
	{
		name: "bytes that were asked for are counted by a header", status: 200, body: "\x00\x01\x02",
		ask:    ask{plan: "1 pooling 1 1 b - -", reply: with(reply(200, "application/octet-stream", "\x00\x01\x02"), "Metadata", `{"usage":{"prompt_tokens":6}}`)},
		record: map[string]string{"why": "end", "end": "done", "prompt": "6", "bits": "SF", "bytes": "3"},
	},
	{
		name: "bytes that were not asked for do not pass", status: 502,
		ask:    ask{plan: plain, reply: reply(200, "application/octet-stream", "\x00")},
		record: map[string]string{"why": "unreadable"},
	},
	{
		name: "a free answer is complete", status: 200, body: `{"tokens":[1]}`,
		ask:    ask{plan: "1 free 1 1 - - -", reply: reply(200, "application/json", `{"tokens":[1]}`)},
		record: map[string]string{"why": "end", "end": "done", "prompt": "0", "completion": "0"},
	},
}

// testBroken looks at engines that break off.
func testBroken(t *testing.T, r *rig, p *peer) {
	t.Helper()
	whole := stream(3, 0)
	broken := &stack.Reply{ContentType: "text/event-stream", Pieces: whole.Pieces[:2], End: "rst", EndAfter: 50 * time.Millisecond}
	lease := r.lease()
	if got := r.get(ask{lease: lease, plan: bare, reply: broken}); got.err == nil {
		t.Errorf("an answer that broke off has ended well: %+v", got)
	}
	if e := record(t, p.wait("e "+lease)); e["why"] != "gone" || e["completion"] != "2" || !strings.HasPrefix(e["details"], "upstream_reset") {
		t.Errorf("the engine broke: %v", e)
	}
	short := &stack.Reply{ContentType: "text/event-stream", Pieces: whole.Pieces[:2]}
	lease = r.lease()
	if got := r.get(ask{lease: lease, plan: bare, reply: short}); got.err != nil {
		t.Errorf("got %+v", got)
	}
	if e := record(t, p.wait("e "+lease)); e["why"] != "end" || e["end"] != "open" {
		t.Errorf("the body ended without its end: %v", e)
	}
}

// testLeft looks at clients that leave, before anything came and after.
func testLeft(t *testing.T, r *rig, p *peer) {
	t.Helper()
	for _, plan := range []string{bare, ""} {
		lease := r.lease()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if resp, err := r.send(ctx, ask{lease: lease, plan: plan, reply: &stack.Reply{End: "hang-before"}}); err == nil {
			t.Error("an answer came")
			_ = resp.Body.Close()
		}
		cancel()
		if plan == "" {
			p.wait("x " + lease)
		} else if e := record(t, p.wait("e "+lease)); e["why"] != "gone" || e["status"] != "0" || e["details"] != "downstream_remote_disconnect" {
			t.Errorf("the client left early: %v", e)
		}
	}
	whole, lease := stream(3, 0), r.lease()
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := r.send(ctx, ask{lease: lease, plan: bare, reply: &stack.Reply{ContentType: "text/event-stream", Pieces: whole.Pieces[:2], End: "hang"}})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadFull(resp.Body, make([]byte, 2*len(whole.Pieces[0])))
	cancel()
	_ = resp.Body.Close()
	if e := record(t, p.wait("e "+lease)); e["why"] != "gone" || e["completion"] != "2" || e["details"] != "downstream_remote_disconnect" {
		t.Errorf("the client left: %v", e)
	}
}

// testCuts cuts a stream before its answer, and within it.
func testCuts(t *testing.T, r *rig, p *peer) {
	t.Helper()
	lease := r.lease()
	early := r.background(ask{lease: lease, plan: plain, headers: "x-ratelimit-limit-requests: 5", reply: &stack.Reply{End: "hang-before"}})
	p.wait("s " + lease + " w")
	p.say("c " + lease)
	if got := <-early; got.status != 503 || got.header.Get("x-ratelimit-limit-requests") != "5" {
		t.Errorf("before the answer: %+v", got)
	}
	if e := record(t, p.wait("e "+lease)); e["why"] != "cut" || e["status"] != "0" {
		t.Errorf("before the answer: %v", e)
	}
	lease = r.lease()
	late := r.background(ask{lease: lease, plan: plain, reply: stream(1000, 10*time.Millisecond)})
	p.wait("s " + lease + " r")
	p.say("c " + lease)
	if got := <-late; got.err == nil || got.body == "" || strings.Contains(got.body, done) {
		t.Errorf("within the answer: %v after %d bytes", got.err, len(got.body))
	}
	if e := record(t, p.wait("e "+lease)); e["why"] != "cut" || e["prompt"] != "7" {
		t.Errorf("within the answer: %v", e)
	}
}

// testQuota runs streams into the end of their allowance: 7 of the prompt and 3.
func testQuota(t *testing.T, r *rig, p *peer) {
	t.Helper()
	const event = "data: {\"error\":\"spent\"}\n\n"
	over := ask{plan: "1 chat 1 1 r 10 7", spent: event, reply: stream(6, 5*time.Millisecond)}
	over.lease = r.lease()
	first := r.background(over)
	if q := p.wait("q " + over.lease + " 11"); q == "" {
		t.Fatal("no question")
	}
	p.say("g " + over.lease + " 10 11")
	if got := <-first; got.err == nil || got.body != stripped(3)+event {
		t.Errorf("nothing was left: %q %v", got.body, got.err)
	}
	if e := record(t, p.wait("e "+over.lease)); e["why"] != "quota" || e["prompt"] != "7" || e["completion"] != "3" {
		t.Errorf("nothing was left: %v", e)
	}
	over.lease, over.reply = r.lease(), stream(6, 5*time.Millisecond)
	more := r.background(over)
	p.wait("q " + over.lease + " 11")
	p.say("g " + over.lease + " 300 11")
	if got := <-more; got.err != nil || got.body != stripped(6)+done {
		t.Errorf("more was given: %q %v", got.body, got.err)
	}
	// Nobody answers: what runs goes on.
	over.lease, over.reply = r.lease(), stream(6, 5*time.Millisecond)
	if got := r.get(over); got.err != nil || got.body != stripped(6)+done {
		t.Errorf("nobody answered: %q %v", got.body, got.err)
	}
	if e := record(t, p.wait("e "+over.lease)); e["why"] != "end" || e["completion"] != "6" {
		t.Errorf("nobody answered: %v", e)
	}
	// All events in one piece: the cut is at the same place.
	var joined []byte
	for _, piece := range stream(6, 0).Pieces {
		joined = append(joined, piece...)
	}
	over.lease, over.reply = r.lease(), reply(200, "text/event-stream", string(joined))
	burst := r.background(over)
	q := p.wait("q " + over.lease)
	p.say("g " + over.lease + " 10 13")
	if got := <-burst; got.body != stripped(3)+event { // well or badly: the engine has ended too
		t.Errorf("in one piece, after %s: %q %v", q, got.body, got.err)
	}
}

// testValidation lets Envoy look at its configuration with the library.
func testValidation(t *testing.T, r *rig, p *peer) {
	t.Helper()
	before := p.count("hello")
	cmd := exec.CommandContext(t.Context(), stack.EnvoyBinary(t), "-c", "envoy.yaml", "--mode", "validate")
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+filepath.Dir(library(t)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if n := p.count("hello"); n != before {
		t.Errorf("%d meters have dialled", n-before)
	}
}
