package metering_test

import (
	"fmt"
	"strings"
	"testing"

	"tollgate/e2e/stack"
)

// What clients ask for.
const (
	chatPlain   = `{"model":"MODEL","stream":true,"messages":[{"role":"user","content":"MARK"}]}`
	chatUsage   = `{"model":"MODEL","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"MARK"}]}`
	chatAll     = `{"model":"MODEL","stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"messages":[{"role":"user","content":"MARK"}]}`
	chatThree   = `{"model":"MODEL","stream":true,"n":3,"temperature":0.5,"messages":[{"role":"user","content":"MARK"}]}`
	chatBody    = `{"model":"MODEL","messages":[{"role":"user","content":"MARK"}]}`
	chatBodyTwo = `{"model":"MODEL","n":2,"temperature":0.5,"messages":[{"role":"user","content":"MARK"}]}`
)

const (
	eventEnd = "\n\n"
	doneLine = "data: [DONE]\n\n"
)

// event is one event: what the engine sends, and what a client sees that asked
// for no usage.
type event struct{ sent, seen string }

func usageOf(prompt, completion int) string {
	return fmt.Sprintf(`{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}`, prompt, prompt+completion, completion)
}

// part is a chunk with text and running usage of its choice.
func part(index int, text string, prompt, completion int) event {
	return partWith(index, text, usageOf(prompt, completion))
}

// partWith is a chunk whose usage is given as JSON, "" for none.
func partWith(index int, text, usage string) event {
	head := fmt.Sprintf(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[{"index":%d,"delta":{"content":%q},"finish_reason":null}]`, index, text)
	if usage == "" {
		return event{head + "}" + eventEnd, head + "}" + eventEnd}
	}
	return event{head + `,"usage":` + usage + "}" + eventEnd, head + "}" + eventEnd}
}

// total is the usage chunk at the end.
func total(prompt, completion int) event { return totalWith(usageOf(prompt, completion)) }

func totalWith(usage string) event {
	return event{`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[],"usage":` + usage + "}" + eventEnd, ""}
}

func raw(s string) event { return event{s, s} }

func end() event { return raw(doneLine) }

func sent(events ...event) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e.sent)
	}
	return b.String()
}

func seen(events ...event) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e.seen)
	}
	return b.String()
}

// stream is a case of a client that asked for no usage.
func stream(name string, w want, events ...event) testCase {
	c := testCase{name: name, route: "/v1/chat/completions", body: chatPlain, sends: sent(events...), client: seen(events...), want: w}
	c.empty = c.client == ""
	return c
}

// open is a case of a client that asked for all usage, so that every byte goes through.
func open(name string, w want, sends string) testCase {
	return testCase{name: name, route: "/v1/chat/completions", body: chatAll, sends: sends, want: w}
}

func (c testCase) split(s splits) testCase    { c.splits = s; return c }
func (c testCase) ending(how string) testCase { c.reply.End = how; return c }
func (c testCase) asked(body string) testCase { c.body = body; return c }

func TestMetering(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	for _, g := range []struct {
		name  string
		cases []testCase
	}{
		{"chat", chatCases()},
		{"framing", framingCases()},
		{"usage", usageCases()},
		{"body", bodyCases()},
		{"text", completionsCases()},
		{"pooling", poolingCases()},
		{"responses", responsesCases()},
		{"messages", messagesCases()},
		{"free", freeCases()},
		{"blocked", blockedCases()},
		{"coding", codingCases()},
	} {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.cases {
				s.run(t, g.name, c)
			}
		})
	}
	t.Run("matrix", s.matrix)
	t.Run("simulated", s.simulated)
	if s.own != nil {
		if got := s.own.Metric("tollgate_unmetered_bytes_total"); got != 0 {
			t.Errorf("unmetered bytes: %v", got)
		}
		stack.Eventually(t, 5e9, "all leases to be back", func() bool { return s.own.Metric("tollgate_leases_live") == 0 })
	}
}

func chatCases() []testCase {
	abc := []event{part(0, "a", 7, 1), part(0, "b", 7, 2), part(0, "c", 7, 3)}
	all := append(append([]event{part(0, "", 7, 0)}, abc...), total(7, 3), end())
	three := []event{
		part(0, "a", 7, 1), part(1, "b", 7, 1), part(2, "c", 7, 1), part(2, "d", 7, 5), part(0, "e", 7, 2), total(7, 8), end(),
	}
	tool := `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","type":"function","function":{"name":"f","arguments":"{\"usage\":{\"prompt_tokens\":99}}"}}]},"finish_reason":null}],"usage":` + usageOf(7, 9) + "}\n\n"
	logprobs := `data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}]},"finish_reason":"stop"}],"usage":` + usageOf(7, 1) + `,"prompt_token_ids":null,"prompt_text":null}` + "\n\n"
	detailed := `{"prompt_tokens":20,"total_tokens":29,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":16,"created_cache_tokens":0},"completion_tokens_details":{"reasoning_tokens":4}}`
	return []testCase{
		stream("no usage asked: none is shown", done(7, 3), all...).split(everywhere),
		{
			name: "final usage asked: the last chunk is shown", route: "/v1/chat/completions", body: chatUsage, sends: sent(all...),
			client: seen(part(0, "", 7, 0)) + seen(abc...) + total(7, 3).sent + doneLine, want: done(7, 3), splits: bytewise,
		},
		open("all usage asked: every byte goes through", done(7, 3), sent(all...)).split(bytewise),
		{name: "alias", route: "/chat/completions", body: chatPlain, sends: sent(all...), client: seen(all...), want: done(7, 3)},
		stream("n=3, counted by choice", done(7, 8), three...).asked(chatThree).split(bytewise),
		stream("n=3, cut: the last usage of each choice", done(7, 8).as("upstream_abort"), three[:5]...).asked(chatThree).ending("fin").slow(),
		stream("a choice that was not asked for", done(7, 3).odd("bad_index"), part(0, "a", 7, 1), part(4, "x", 7, 50), total(7, 3), end()),
		stream("tokens without text", done(7, 9), part(0, "", 7, 0), part(0, "a", 7, 1), part(0, "", 7, 9), total(7, 9), end()),
		stream("tool call with usage in its arguments", done(7, 9), event{tool, strings.Replace(tool, `,"usage":`+usageOf(7, 9)+"}\n", "}\n", 1)}, total(7, 9), end()),
		stream("logprobs, keys behind usage", done(7, 1), event{logprobs, strings.Replace(logprobs, `,"usage":`+usageOf(7, 1), "", 1)}, total(7, 1), end()).split(bytewise),
		stream("cached and reasoning tokens", done(20, 9).details(16, 4), part(0, "a", 20, 1), totalWith(detailed), end()),
		stream("cut after three tokens", done(7, 3).as("upstream_abort"), abc...).ending("fin").slow(),
		stream("reset after three tokens", done(7, 3).as("upstream_abort"), abc...).ending("rst").slow(),
		stream("error event", done(7, 2).as("upstream_error"), abc[0], abc[1], raw(`data: {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": null, "code": 500}}`+"\n\n"), end()).split(bytewise),
		stream("error event at once (queue full)", guessZero("upstream_error"), raw(`data: {"error": {"message": "The engine is currently busy", "type": "Service Unavailable", "param": null, "code": 503}}`+"\n\n"), end()),
		stream("engine shuts down", done(7, 2).as("engine_abort"), abc[0], abc[1],
			event{`data: {"id":"c","choices":[{"index":0,"delta":{"content":""},"finish_reason":"abort"}],"usage":` + usageOf(7, 2) + "}\n\n", `data: {"id":"c","choices":[{"index":0,"delta":{"content":""},"finish_reason":"abort"}]}` + "\n\n"},
			total(7, 2), end()),
		withLeaving(stream("client leaves after three tokens", done(7, 3).as("client_abort"), abc...)),
		withLeaving(stream("client leaves before a token", done(7, 0).as("client_abort"), part(0, "", 7, 0))),
	}
}

// guessZero: nothing was said and no text was delivered.
func guessZero(reason string) want { return guess(reason, 0) }

// slow writes the answer and then waits a moment before it cuts: a reset
// overtakes what is on its way.
func (c testCase) slow() testCase {
	c.reply.Gap = 0
	c.reply.EndAfter = 50e6
	return c
}

func withLeaving(c testCase) testCase {
	c.leaves, c.reply.End = true, "hang"
	return c
}

// framingCases are the event stream format itself.
func framingCases() []testCase {
	plain := sent(part(0, "a", 7, 1), part(0, "b", 7, 2), total(7, 2), end())
	lines := func(s, with string) string { return strings.ReplaceAll(s, "\n", with) }
	multi := "data: {\"choices\":[],\ndata: \"usage\":" + usageOf(7, 2) + "}\n\n"
	inside := part(0, "data: [DONE]\n\n", 7, 2).sent
	return []testCase{
		open("LF", done(7, 2), plain).split(sampled),
		open("CRLF", done(7, 2), lines(plain, "\r\n")).split(sampled),
		open("CR", done(7, 2), lines(plain, "\r")).split(bytewise),
		open("line ends mixed", done(7, 2), part(0, "a", 7, 1).sent+lines(part(0, "b", 7, 2).sent, "\r\n")+lines(total(7, 2).sent, "\r")+doneLine).split(bytewise),
		stream("CRLF, usage removed", done(7, 2), event{lines(part(0, "a", 7, 2).sent, "\r\n"), lines(part(0, "a", 7, 2).seen, "\r\n")}, event{lines(total(7, 2).sent, "\r\n"), ""}, raw(lines(doneLine, "\r\n"))).split(everywhere),
		open("no end of line at the end", done(7, 2), strings.TrimRight(plain, "\n")).split(bytewise),
		open("byte order mark", done(7, 2), "\ufeff"+plain).split(bytewise),
		open("byte order mark in the middle is no mark", done(7, 2), part(0, "a", 7, 1).sent+"\ufeff"+part(0, "b", 7, 9).sent+total(7, 2).sent+doneLine),
		open("comments between events", done(7, 2), ": keep-alive\n\n"+part(0, "a", 7, 1).sent+": keep-alive\n\n"+total(7, 2).sent+":\n\n"+doneLine).split(bytewise),
		open("comment inside an event", done(7, 2), ": x\n"+part(0, "a", 7, 1).sent+total(7, 2).sent+": y\n"+doneLine).split(bytewise),
		stream("comments stay, usage goes", done(7, 2), raw(": keep-alive\n\n"), part(0, "a", 7, 1), raw(": keep-alive\n\n"), total(7, 2), raw(": keep-alive\n\n"), end()).split(bytewise),
		open("a comment of 64 KiB", done(7, 2), ": "+strings.Repeat("x", 64<<10)+"\n\n"+plain),
		open("data in several lines", done(7, 2), part(0, "a", 7, 1).sent+multi+doneLine).split(bytewise),
		open("no space behind the colon", done(7, 2), strings.ReplaceAll(plain, "data: ", "data:")).split(bytewise),
		open("two spaces behind the colon", done(7, 2).as("upstream_abort"), strings.ReplaceAll(plain, "data: [", "data:  [")).bad("malformed"),
		open("fields that nobody knows", done(7, 2), "foo: bar\nid: \x00\nretry: soon\ndata\n\n"+plain),
		open("event and id lines beside data", done(7, 2), "event: message\nid: 7\n"+part(0, "a", 7, 1).sent+total(7, 2).sent+doneLine),
		open("[DONE] missing", done(7, 2).as("upstream_abort"), strings.TrimSuffix(plain, doneLine)),
		open("[DONE] twice", done(7, 2), plain+doneLine),
		open("[DONE] in lower case is none", done(7, 2).as("upstream_abort"), strings.Replace(plain, "DONE", "done", 1)).bad("malformed"),
		open("[DONE] in the content is none", done(7, 2).as("upstream_abort"), inside+total(7, 2).sent),
		open("[DONE] before the usage", done(7, 1).upTo(2), part(0, "a", 7, 1).sent+doneLine+total(7, 2).sent),
		open("two bytes a letter", done(7, 1), part(0, "ä", 7, 1).sent+total(7, 1).sent+doneLine).split(sampled),
		open("three and four bytes a letter, joined", done(7, 1), part(0, "語👩‍👩‍👧", 7, 1).sent+total(7, 1).sent+doneLine).split(bytewise),
		open("bytes that are no UTF-8", done(7, 1), "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\xc0\xaf\xed\xa0\x80\"}}],\"usage\":"+usageOf(7, 1)+"}\n\n"+total(7, 1).sent+doneLine).split(bytewise),
		open("an event of 3 MiB", done(7, 2), part(0, strings.Repeat("x", 3<<20), 7, 1).sent+total(7, 2).sent+doneLine),
		open("an empty answer", guess("upstream_abort", 0), ""),
	}
}

func (c testCase) bad(kinds ...string) testCase { c.want = c.want.odd(kinds...); return c }
