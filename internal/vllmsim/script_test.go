package vllmsim_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/vllmsim"
)

func yieldProcessor() { runtime.Gosched() }

func TestAStreamCanBeCut(t *testing.T) {
	for _, c := range []struct {
		how  string
		want error
	}{{"fin", io.ErrUnexpectedEOF}, {"rst", syscall.ECONNRESET}} {
		t.Run(c.how, func(t *testing.T) {
			sim, srv := start(t, vllmsim.Options{})
			l := open(t, srv, chatPath, "a", chat(`,"max_tokens":9,"sim":{"pause_after":3,"cut_after":3,"cut":"`+c.how+`"}`+running))
			l.events(4)
			sim.Release()
			rest, err := l.rest()
			if rest != "" || !errors.Is(err, c.want) {
				t.Errorf("after the cut: got %q, %v, want %v", rest, err, c.want)
			}
			if got := ended(t, sim, "a"); !got.Cut || got.Aborted || got.Finished || got.WrittenTokens() != 3 {
				t.Errorf("truth: %+v", got)
			}
		})
	}
}

func TestAPauseHoldsNothingBack(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	l := open(t, srv, chatPath, "a", chat(`,"max_tokens":9,"sim":{"pause_after":2,"join":100}`+running))
	l.events(3)
	if n := sim.ReleaseRequest("a"); n != 1 {
		t.Errorf("released: got %d, want 1", n)
	}
	if rest, err := l.rest(); err != nil || strings.Count(rest, "\n\n") != 9 {
		t.Errorf("after the release: got %q, %v", rest, err)
	}
}

func TestAnEngineFailureIsTheRecordedEvent(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	want := readReply(t, recorded(t, "base/sigkill_engine.resp"))
	got := send(t, srv, chatPath, chat(`,"sim":{"error_after":4}`+running), "X-Request-Id: a")
	if diff := cmp.Diff(want.chunks[len(want.chunks)-2:], got.chunks[len(got.chunks)-2:]); diff != "" {
		t.Errorf("end (-want +got):\n%s", diff)
	}
	if truth := ended(t, sim, "a"); truth.WrittenTokens() != 4 || truth.Completion() != 4 {
		t.Errorf("truth: %+v", truth)
	}
	if whole := send(t, srv, chatPath, chat(`,"sim":{"error_after":4}`)); whole.status != http.StatusInternalServerError {
		t.Errorf("not streamed: got %d", whole.status)
	}
	for path, event := range map[string]string{"/v1/messages": "event: error\n", "/v1/responses": "event: error\n"} {
		r := send(t, srv, path, `{"input":"x","messages":[{"role":"user","content":"x"}],"max_tokens":9,"stream":true,"sim":{"error_after":2}}`)
		if last := r.chunks[len(r.chunks)-1]; !strings.HasPrefix(last, event) {
			t.Errorf("%s: got %q last", path, last)
		}
	}
}

func TestAnEngineAbortIsTheRecordedEnd(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	want := readReply(t, recorded(t, "base/sigterm_midstream.resp"))
	got := send(t, srv, chatPath, chat(`,"sim":{"engine_abort_after":4}`+running), "X-Request-Id: a")
	for i := 1; i <= 3; i++ {
		w, g := eventShape(t, want.chunks[len(want.chunks)-i]), eventShape(t, got.chunks[len(got.chunks)-i])
		if diff := cmp.Diff(w, g); diff != "" {
			t.Errorf("event %d from the end (-want +got):\n%s", i, diff)
		}
	}
	if usage := usageOf(t, sse(got)[6]); usage["completion_tokens"] != 4 {
		t.Errorf("usage: got %v, want 4 tokens", usage)
	}
	if truth := ended(t, sim, "a"); !truth.Finished || truth.Completion() != 4 {
		t.Errorf("truth: %+v", truth)
	}
}

// scripts are scripts of a stream of 3 tokens, which has 6 events, and what
// is to be true of the answer.
var scripts = []struct {
	name, sim string
	holds     func(r reply) bool
}{
	{"more tokens than the bound", `"tokens":5`, func(r reply) bool {
		return len(sse(r)) == 6 && strings.Contains(r.body(), `"finish_reason":"length"`)
	}},
	{"fewer tokens", `"tokens":2`, func(r reply) bool {
		return len(sse(r)) == 5 && strings.Contains(r.body(), `"finish_reason":"stop"`)
	}},
	{"text", `"text":"\"usage\" <x>"`, func(r reply) bool {
		return strings.Contains(r.body(), `"content":"\""`) && strings.Contains(r.body(), `"content":"usage"`)
	}},
	{"no usage", `"no_usage":true`, func(r reply) bool {
		return !strings.Contains(r.body(), `"usage"`) && strings.Contains(r.body(), "[DONE]")
	}},
	{"no done", `"no_done":true`, func(r reply) bool {
		return !strings.Contains(r.body(), "[DONE]") && r.ended && len(sse(r)) == 5
	}},
	{"usage override", `"usage_override":{"prompt_tokens":-1},"running_override":{"completion_tokens":1e3}`, func(r reply) bool {
		return strings.Count(r.body(), `"usage":{"prompt_tokens":-1}`) == 1 && strings.Count(r.body(), `"usage":{"completion_tokens":1e3}`) == 4
	}},
	{"crlf", `"crlf":true`, func(r reply) bool {
		return strings.Count(r.body(), "\n") == strings.Count(r.body(), "\r\n") && len(sse(r)) == 6
	}},
	{"comments", `"comments":true`, func(r reply) bool {
		return strings.Count(r.body(), ": keep-alive\n\n") == 6 && len(sse(r)) == 6
	}},
	{"chunk bytes", `"chunk_bytes":7`, func(r reply) bool {
		return len(sse(r)) == 6 && !slices.ContainsFunc(r.chunks, func(c string) bool { return len(c) > 7 })
	}},
	{"join", `"join":3`, func(r reply) bool { return len(r.chunks) == 2 && len(sse(r)) == 6 }},
	{"big event", `"big_event":100000`, func(r reply) bool { return len(r.chunks) == 6 && len(r.chunks[1]) > 100000 }},
	{"empty tokens", `"empty_every":2`, func(r reply) bool {
		return strings.Count(r.body(), `"delta":{"content":""}`) == 1 && len(sse(r)) == 6
	}},
	{"error status", `"error_status":429,"error_body":"slow down"`, func(r reply) bool {
		return r.status == http.StatusTooManyRequests && r.body() == "slow down"
	}},
	{"raw", `"raw":"` + base64.StdEncoding.EncodeToString([]byte("\x00bad: \xff\n")) + `","raw_content_type":"text/odd"`, func(r reply) bool {
		return r.body() == "\x00bad: \xff\n" && r.headers["content-type"] == "text/odd" && r.ended
	}},
	{"raw and cut", `"raw":"aGFsZg==","cut_after":0`, func(r reply) bool { return r.body() == "half" && !r.ended }},
	{"misspelt", `"tokenz":5`, func(r reply) bool {
		return r.status == http.StatusBadRequest && strings.Contains(r.body(), "tokenz")
	}},
}

func TestScriptsChangeAnAnswer(t *testing.T) {
	_, srv := start(t, vllmsim.Options{})
	if plain := send(t, srv, chatPath, chat(`,"max_tokens":3`+running)); len(sse(plain)) != 6 {
		t.Fatalf("without a script: got %s", plain.body())
	}
	for _, c := range scripts {
		t.Run(c.name, func(t *testing.T) {
			r := send(t, srv, chatPath, chat(`,"max_tokens":3,"sim":{`+c.sim+`}`+running))
			if !c.holds(r) {
				t.Errorf("got %d, ended %v: %.2000q", r.status, r.ended, r.chunks)
			}
		})
	}
}

func TestATokenWithoutTextIsSuppressedWhereAParserLooks(t *testing.T) {
	_, srv := start(t, vllmsim.Options{ToolParser: true})
	r := send(t, srv, chatPath, chat(`,"max_tokens":5,"sim":{"empty_every":2}`+running))
	var seen []int
	for _, data := range sse(r) {
		if data != "[DONE]" {
			seen = append(seen, usageOf(t, data)["completion_tokens"])
		}
	}
	if diff := cmp.Diff([]int{0, 1, 3, 5, 5}, seen); diff != "" {
		t.Errorf("running usage jumps (-want +got):\n%s", diff)
	}
}

func TestAToolIsCalledWithArgumentsThatFit(t *testing.T) {
	_, srv := start(t, vllmsim.Options{ToolParser: true})
	const tools = `,"tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object","properties":{"op":{"enum":["sum"]},"n":{"type":"integer"}},"required":["op","n"]}}}],"tool_choice":"required"`
	r := send(t, srv, chatPath, chat(tools))
	if !strings.Contains(r.body(), `"function":{"name":"add","arguments":"{\"op\": \"sum\", \"n\": 1}"}`) || !strings.Contains(r.body(), `"finish_reason":"tool_calls"`) {
		t.Errorf("got %s", r.body())
	}
	streamed := send(t, srv, chatPath, chat(tools+running))
	var args strings.Builder
	for _, data := range sse(streamed) {
		if _, rest, ok := strings.Cut(data, `{"arguments":"`); ok {
			piece, _, _ := strings.Cut(rest, `"}}]`)
			args.WriteString(piece)
		}
	}
	if got := args.String(); got != `{\"op\": \"sum\", \"n\": 1}` {
		t.Errorf("streamed arguments: got %s", got)
	}
}

func TestDefaultsApplyUntilTheReset(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	tokens := 2
	if err := sim.Script(vllmsim.Control{Defaults: &vllmsim.Script{Tokens: &tokens, NoDone: true}}); err != nil {
		t.Fatal(err)
	}
	if r := send(t, srv, chatPath, chat(running)); strings.Contains(r.body(), "[DONE]") || len(sse(r)) != 4 {
		t.Errorf("got %s", r.body())
	}
	if r := send(t, srv, chatPath, chat(`,"sim":{"tokens":3}`+running)); strings.Contains(r.body(), "[DONE]") || len(sse(r)) != 5 {
		t.Errorf("laid over: got %s", r.body())
	}
	if r := send(t, srv, chatPath, chat(running)); len(sse(r)) != 4 {
		t.Errorf("the request changed the defaults: got %s", r.body())
	}
	sim.Reset()
	if r := send(t, srv, chatPath, chat(running)); !strings.Contains(r.body(), "[DONE]") {
		t.Errorf("after the reset: got %s", r.body())
	}
	if s := sim.Stats(); s.Requests != 1 {
		t.Errorf("after the reset: %+v", s)
	}
}

func TestACrashEndsEverything(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	l := open(t, srv, chatPath, "a", chat(`,"sim":{"pause_after":1}`+running))
	l.events(2)
	if err := sim.Script(vllmsim.Control{Crash: "engine"}); err != nil {
		t.Fatal(err)
	}
	if rest, err := l.rest(); err != nil || !strings.Contains(rest, `data: {"error": {`) || !strings.HasSuffix(rest, "data: [DONE]\n\n") {
		t.Errorf("the stream: got %q, %v", rest, err)
	}
	resp, err := srv.Client().Get(srv.URL + "/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("health: got %d, want 503", resp.StatusCode)
	}
	if r := send(t, srv, chatPath, chat(``)); r.status != http.StatusInternalServerError {
		t.Errorf("new work: got %d, want 500", r.status)
	}
	sim.Reset()
	h := open(t, srv, chatPath, "b", chat(`,"sim":{"pause_after":1}`+running))
	h.events(2)
	if err := sim.Script(vllmsim.Control{Crash: "main"}); err != nil {
		t.Fatal(err)
	}
	if rest, err := h.rest(); rest != "" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream: got %q, %v", rest, err)
	}
	if resp, err := srv.Client().Get(srv.URL + "/health"); err == nil {
		resp.Body.Close()
		t.Errorf("health: got %d, want no answer", resp.StatusCode)
	}
}

func TestAnAnswerDoesNotGoToAnAgentsBound(t *testing.T) {
	_, srv := start(t, vllmsim.Options{})
	for bound, finish := range map[int]string{20: "length", 32000: "stop"} {
		r := send(t, srv, "/v1/chat/completions", fmt.Sprintf(`{"model": "simulated", "max_tokens": %d, "messages": [{"role": "user", "content": "hi"}]}`, bound))
		if want := `"finish_reason":"` + finish + `"`; !strings.Contains(r.body(), want) {
			t.Errorf("max_tokens %d: no %s in %s", bound, want, r.body())
		}
	}
}
