package metering_test

import (
	"fmt"
	"strings"
)

// named is an event with a name line.
func named(name, data string) string { return "event: " + name + "\ndata: " + data + "\n\n" }

// responsesCases: events of named types, usage at the end only, no [DONE].
func responsesCases() []testCase {
	const (
		body   = `{"model":"MODEL","stream":true,"input":"MARK"}`
		single = `{"model":"MODEL","input":"MARK"}`
	)
	usage := func(in, out int) string {
		return fmt.Sprintf(`{"input_tokens":%d,"input_tokens_details":{"cached_tokens":4,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":2,"tool_output_tokens":0,"output_tokens_per_turn":[]},"total_tokens":%d}`, in, out, in+out)
	}
	start := named("response.created", `{"type":"response.created","sequence_number":0,"response":{"id":"r","status":"in_progress","usage":null}}`) +
		named("response.in_progress", `{"type":"response.in_progress","sequence_number":1,"response":{"id":"r","status":"in_progress","usage":null}}`)
	delta := func(kind, text string) string {
		return named("response."+kind+".delta", fmt.Sprintf(`{"type":"response.%s.delta","item_id":"i","output_index":0,"content_index":0,"delta":%q}`, kind, text))
	}
	finish := func(event, status string, in, out int) string {
		return named("response."+event, fmt.Sprintf(`{"type":"response.%s","sequence_number":9,"response":{"id":"r","status":%q,"output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],"usage":%s}}`, event, status, usage(in, out)))
	}
	c := func(name string, w want, sends string) testCase {
		return testCase{name: name, route: "/v1/responses", body: body, sends: sends, want: w}
	}
	text := start + delta("output_text", "some ") + delta("output_text", "text")
	whole := fmt.Sprintf(`{"id":"r","object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],"usage":%s,"user":null}`, usage(12, 5))
	return []testCase{
		c("completed", done(12, 5).details(4, 2), text+finish("completed", "completed", 12, 5)).split(sampled),
		c("incomplete, as vLLM says it", done(12, 5).details(4, 2), text+finish("completed", "incomplete", 12, 5)),
		c("incomplete, as OpenAI says it", done(12, 5).details(4, 2), text+finish("incomplete", "incomplete", 12, 5)),
		c("failed with usage", done(12, 5).details(4, 2).as("upstream_error"), text+finish("failed", "failed", 12, 5)),
		c("failed without usage: an estimate", guess("upstream_error", 2), text+named("response.failed", `{"type":"response.failed","response":{"status":"failed","error":{"message":"x"},"usage":null}}`)),
		c("error event", guess("upstream_error", 2), text+named("error", `{"type":"error","code":"server_error","message":"x"}`)),
		c("reasoning deltas count", guess("upstream_abort", 1), start+delta("reasoning_text", "thinking")).ending("fin").slow(),
		c("tool call deltas count", guess("upstream_abort", 1), start+delta("function_call_arguments", `{\"a\":1}`)).ending("fin").slow(),
		c("cut: an estimate of the text", guess("upstream_abort", 2), text).ending("fin").slow(),
		c("ended without its end", guess("upstream_abort", 2), text),
		withLeaving(c("client leaves", guess("client_abort", 2), text)),
		c("type in the data alone", done(12, 5).details(4, 2), strings.ReplaceAll(text+finish("completed", "completed", 12, 5), "event: ", ": ")),
		{name: "not streamed", route: "/v1/responses", body: single, sends: whole, want: done(12, 5).details(4, 2), splits: bytewise},
		{name: "not streamed, no usage", route: "/v1/responses", body: single, sends: strings.Replace(whole, usage(12, 5), "null", 1), want: guess("complete", 1)},
		{name: "not streamed, failed", route: "/v1/responses", body: single, sends: strings.Replace(whole, `"status":"completed"`, `"status":"failed"`, 1), want: done(12, 5).details(4, 2).as("upstream_error")},
	}
}

// messagesCases: the whole prompt at the start, the final usage before the
// end, the prompt in three parts that do not overlap.
func messagesCases() []testCase {
	const (
		body   = `{"model":"MODEL","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"MARK"}]}`
		single = `{"model":"MODEL","max_tokens":9,"messages":[{"role":"user","content":"MARK"}]}`
	)
	start := named("message_start", `{"type":"message_start","message":{"id":"m","content":[],"model":"tiny","usage":{"input_tokens":275,"output_tokens":0}}}`) +
		named("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
	delta := func(kind, key, text string) string {
		return named("content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":%q,%q:%q}}`, kind, key, text))
	}
	finish := func(usage string) string {
		return named("content_block_stop", `{"type":"content_block_stop","index":0}`) +
			named("message_delta", `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":`+usage+`}`) +
			named("message_stop", `{"type":"message_stop"}`)
	}
	text := start + delta("text_delta", "text", "some ") + delta("text_delta", "text", "text")
	c := func(name string, w want, sends string) testCase {
		return testCase{name: name, route: "/v1/messages", body: body, sends: sends, want: w}
	}
	cached := `{"input_tokens":19,"output_tokens":8,"cache_creation_input_tokens":0,"cache_read_input_tokens":256}`
	whole := `{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"hi"}],"model":"tiny","stop_reason":"end_turn","usage":` + cached + `}`
	return []testCase{
		c("complete", done(275, 8), text+finish(`{"input_tokens":275,"output_tokens":8}`)).split(sampled),
		c("a cache hit: the prompt is the sum of three", done(275, 8).details(256, -1), text+finish(cached)).split(bytewise),
		c("a cache that was written", done(275, 8).details(100, -1), text+finish(`{"input_tokens":15,"output_tokens":8,"cache_creation_input_tokens":160,"cache_read_input_tokens":100}`)),
		c("only output at the end", done(275, 8), text+finish(`{"output_tokens":8}`)),
		c("error event", prompted(275, guess("upstream_error", 2)), text+named("error", `{"type":"error","error":{"type":"api_error","message":"x"}}`)),
		c("cut: an estimate of the text", prompted(275, guess("upstream_abort", 2)), text).ending("fin").slow(),
		c("thinking counts", prompted(275, guess("upstream_abort", 1)), start+delta("thinking_delta", "thinking", "hm")).ending("fin").slow(),
		c("tool input counts", prompted(275, guess("upstream_abort", 1)), start+delta("input_json_delta", "partial_json", `{"a":1}`)).ending("fin").slow(),
		withLeaving(c("client leaves", prompted(275, guess("client_abort", 2)), text)),
		c("no message_stop", done(275, 8).as("upstream_abort"), strings.TrimSuffix(text+finish(`{"input_tokens":275,"output_tokens":8}`), named("message_stop", `{"type":"message_stop"}`))),
		{name: "not streamed", route: "/v1/messages", body: single, sends: whole, want: done(275, 8).details(256, -1), splits: bytewise},
		{name: "not streamed, error in a 200", route: "/v1/messages", body: single, sends: `{"type":"error","error":{"type":"overloaded_error","message":"x"}}`, want: guess("upstream_error", 0)},
	}
}

// prompted: the prompt was said although the output is an estimate.
func prompted(prompt int64, w want) want { w.prompt = prompt; return w }
