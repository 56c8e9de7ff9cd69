package http_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// chatEvents is a whole chat stream of three tokens, as an engine sends it that
// was asked for all usage.
func chatEvents() string {
	var b strings.Builder
	for i := 1; i <= 3; i++ {
		fmt.Fprintf(&b, `data: {"id":"c","choices":[{"index":0,"delta":{"content":"w%d "},"finish_reason":null}],"usage":{"prompt_tokens":7,"total_tokens":%d,"completion_tokens":%d}}`+"\n\n", i, 7+i, i)
	}
	b.WriteString(`data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3}}` + "\n\ndata: [DONE]\n\n")
	return b.String()
}

// chatBody is a whole chat answer with that usage.
func chatBody(usage string) string {
	return `{"id":"c","object":"chat.completion","model":"tiny","choices":[{"index":0,"message":{"role":"assistant","content":"some text"},"finish_reason":"stop"}],"usage":` + usage + `}`
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

const html = "<!doctype html><title>It works</title>"

// engineAnswer is what an engine, or a proxy before it, sends with 200, and what must
// come of it.
type engineAnswer struct {
	name, kind, coding, body string
	stream, sized            bool // the request streams; the answer has a content-length
	status                   int
	reason                   ledger.EndReason
	quality                  ledger.Quality
	tokens                   int64  // of the output: exactly, or at least where it is an estimate
	odd                      string // kind of the anomaly
}

// answers: delivered without an account, an answer costs a token for each four
// bytes at least.
var answers = []engineAnswer{
	{name: "JSON", kind: "application/json", body: chatBody(`{"prompt_tokens":7,"completion_tokens":3}`), status: 200, reason: ledger.Complete, quality: ledger.Exact, tokens: 3},
	{name: "an event stream", kind: "text/event-stream", body: chatEvents(), stream: true, status: 200, reason: ledger.Complete, quality: ledger.Exact, tokens: 3},
	{name: "an event stream with a length", kind: "text/event-stream", body: chatEvents(), stream: true, sized: true, status: 200, reason: ledger.Complete, quality: ledger.Exact, tokens: 3},
	{name: "JSON with a length", kind: "application/json", body: chatBody(`{"prompt_tokens":7,"completion_tokens":3}`), sized: true, status: 200, reason: ledger.Complete, quality: ledger.Exact, tokens: 3},

	{name: "a page", kind: "text/html", body: strings.Repeat(html, 200), status: 502, reason: ledger.Refused, quality: ledger.Exact, odd: "unreadable"},
	{name: "a page, streamed", kind: "text/html; charset=utf-8", body: strings.Repeat(html, 200), stream: true, status: 502, reason: ledger.Refused, quality: ledger.Exact, odd: "unreadable"},
	{name: "no type", body: chatBody("null"), status: 502, reason: ledger.Refused, quality: ledger.Exact, odd: "unreadable"},
	{name: "bytes that nobody asked for", kind: "application/octet-stream", body: "\x00\x01", status: 502, reason: ledger.Refused, quality: ledger.Exact, odd: "unreadable"},

	{name: "an event stream labelled JSON", kind: "application/json", body: chatEvents(), status: 200, reason: ledger.UpstreamAbort, quality: ledger.Estimated, tokens: int64(len(chatEvents()) / 4), odd: "malformed"},
	{name: "a page labelled JSON", kind: "application/json", body: strings.Repeat(html, 200), status: 200, reason: ledger.UpstreamAbort, quality: ledger.Estimated, tokens: int64(len(html) * 200 / 4), odd: "malformed"},
	{name: "a page labelled as a stream", kind: "text/event-stream", body: strings.Repeat(html, 200), stream: true, status: 200, reason: ledger.UpstreamAbort, quality: ledger.Estimated, tokens: int64(len(html) * 200 / 4)},
	{name: "JSON of something else", kind: "application/json", body: `{"x":"` + strings.Repeat("y", 4000) + `"}`, status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 1000},
	{name: "gzip", kind: "application/json", coding: "gzip", body: zipped(chatBody(`{"prompt_tokens":7,"completion_tokens":3}`)), status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: int64(len(zipped(chatBody(`{"prompt_tokens":7,"completion_tokens":3}`))) / 4), odd: "encoded"},
	{name: "gzip, streamed", kind: "text/event-stream", coding: "gzip", body: zipped(chatEvents()), stream: true, status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: int64(len(zipped(chatEvents())) / 4), odd: "encoded"},
	{name: "gzip, not labelled", kind: "application/json", body: zipped(chatBody("null")), status: 200, reason: ledger.UpstreamAbort, quality: ledger.Estimated, tokens: int64(len(zipped(chatBody("null"))) / 4), odd: "encoded"},

	{name: "10^15 tokens", kind: "application/json", body: chatBody(`{"prompt_tokens":7,"completion_tokens":1000000000000000}`), status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 1, odd: "absurd"},
	{name: "10^15 tokens of a prompt", kind: "application/json", body: chatBody(`{"prompt_tokens":1000000000000000,"completion_tokens":3}`), status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 1, odd: "absurd"},
	{name: "the largest int64", kind: "application/json", body: chatBody(`{"prompt_tokens":7,"completion_tokens":9223372036854775807}`), status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 1, odd: "absurd"},
	{name: "above int64", kind: "application/json", body: chatBody(`{"prompt_tokens":7,"completion_tokens":9223372036854775808}`), status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 1, odd: "overflow"},
	{name: "less than nothing", kind: "application/json", body: chatBody(`{"prompt_tokens":7,"completion_tokens":-3}`), status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 1, odd: "negative"},
	{name: "more cached than there is", kind: "application/json", body: chatBody(`{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}`), status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 3, odd: "inconsistent"},
	{name: "more reasoning than output", kind: "application/json", body: chatBody(`{"prompt_tokens":7,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":4}}`), status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 3, odd: "inconsistent"},
	{
		name: "absurd in a stream", kind: "text/event-stream", stream: true, status: 200, reason: ledger.Complete, quality: ledger.Estimated, tokens: 1, odd: "absurd",
		body: strings.ReplaceAll(chatEvents(), `"completion_tokens":3`, `"completion_tokens":1000000000000000`),
	},
}

func TestEveryFormOfAnAnswer(t *testing.T) {
	up := stack.StartUpstream(t, "", vllmsim.Options{})
	s := stack.Start(t, stack.Options{Engine: up.Addr, Config: "rate_limit: {tokens_per_minute: 1000000}"})
	for _, c := range answers {
		for _, proto := range []protocol{http11, h2} {
			t.Run(c.name+", "+string(proto), func(t *testing.T) { c.check(t, s, up, proto) })
		}
	}
	if n := s.Metric("tollgate_unmetered_bytes_total"); n != 0 {
		t.Errorf("%v bytes passed unmetered", n)
	}
	s.Idle(5 * time.Second)
}

// check lets the engine give the answer and looks at what came of it.
func (c *engineAnswer) check(t *testing.T, s *stack.Stack, up *stack.Upstream, proto protocol) {
	t.Helper()
	before := 0.0
	if c.odd != "" {
		before = s.Metric("tollgate_anomalies_total", "kind", c.odd)
	}
	header := http.Header{}
	if c.coding != "" {
		header.Set("Content-Encoding", c.coding)
	}
	if c.sized {
		header.Set("Content-Length", strconv.Itoa(len(c.body)))
	}
	mark := up.On(&stack.Reply{ContentType: c.kind, Header: header, Pieces: [][]byte{[]byte(c.body)}})
	a := send(t, s.Addr(), request{
		proto: proto, path: stack.ChatPath, framing: length, headers: headersOf(length, "application/json", "none"),
		body: fmt.Sprintf(`{"model":"tiny","stream":%v,"messages":[{"role":"user","content":"%s"}]}`, c.stream, mark),
	})
	if a.status != c.status || a.fault != "" || c.status == 502 && a.shape() != "bad_engine_answer" {
		t.Fatalf("got %d %s (%s) %.200s, want %d", a.status, a.shape(), a.fault, a.body, c.status)
	}
	c.compare(t, s.Settled(a.header.Get("x-request-id")))
	if c.odd != "" && s.Metric("tollgate_anomalies_total", "kind", c.odd) <= before {
		t.Errorf("no anomaly of the kind %s", c.odd)
	}
}

// compare holds a row of the ledger against what it should be.
func (c *engineAnswer) compare(t *testing.T, rec ledger.Record) {
	t.Helper()
	exactly := c.quality == ledger.Exact && rec.Counts.Completion == c.tokens
	guessed := c.quality == ledger.Estimated && rec.Counts.Completion >= max(1, c.tokens) && rec.Counts.Completion < 100_000 && rec.Counts.Prompt < 1000
	if rec.Reason != c.reason || rec.Quality != c.quality || rec.Status != c.status || !exactly && !guessed {
		t.Errorf("ledger: %s %s, status %d, %d + %d tokens; want %s %s, %d, %d", rec.Reason, rec.Quality, rec.Status,
			rec.Counts.Prompt, rec.Counts.Completion, c.reason, c.quality, c.status, c.tokens)
	}
}
