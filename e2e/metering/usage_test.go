package metering_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/stack"
)

// usageCases are what an engine may write in place of a count.
func usageCases() []testCase {
	run := []event{part(0, "a", 7, 1), part(0, "b", 7, 2), part(0, "c", 7, 3)}
	final := func(usage string) []event { return append(append([]event{}, run...), totalWith(usage), end()) }
	count := func(v string) string {
		return `{"prompt_tokens":7,"total_tokens":10,"completion_tokens":` + v + `}`
	}
	running := func(v string) []event {
		return []event{part(0, "a", 7, 1), partWith(0, "b", count(v)), total(7, 2), end()}
	}
	cut := func(c testCase) testCase { return c.ending("fin").slow() }
	null := `data: {"id":"c","choices":[{"index":0,"delta":{"content":"b"}}],"usage":null}` + "\n\n"
	return []testCase{
		stream("no usage anywhere: an estimate of the text", guess("complete", 1), partWith(0, "some text", ""), end()),
		stream("no final usage: the last running one", done(7, 3), append(append([]event{}, run...), end())...),
		open("usage null beside choices", done(7, 2), part(0, "a", 7, 1).sent+null+total(7, 2).sent+doneLine),
		stream("final counts null: the running ones", done(7, 3), final(`{"prompt_tokens":null,"total_tokens":null,"completion_tokens":null}`)...),
		stream("zero is zero", done(0, 0), partWith(0, "a", usageOf(0, 0)), total(0, 0), end()),
		stream("negative final", done(7, 3).odd("negative"), final(count("-5"))...),
		stream("fraction 1.5", done(7, 3).odd("fractional"), final(count("1.5"))...),
		stream("exponent 1e3", done(7, 3).odd("fractional"), final(count("1e3"))...),
		stream(`text "12"`, done(7, 3).odd("wrong_type"), final(count(`"12"`))...),
		stream("true", done(7, 3).odd("wrong_type"), final(count("true"))...),
		stream("an array", done(7, 3).odd("wrong_type"), final(count("[3]"))...),
		stream("NaN", done(7, 3).odd("wrong_type"), final(count("NaN"))...),
		stream("above int64", done(7, 3).odd("overflow"), final(count("9223372036854775808"))...),
		stream("far above int64", done(7, 3).odd("overflow"), final(count(strings.Repeat("9", 60)))...),
		stream("count given twice", done(7, 3).odd("malformed"), final(`{"prompt_tokens":7,"completion_tokens":3,"completion_tokens":99}`)...),
		stream("usage is a number", done(7, 3).odd("wrong_type"), append(append([]event{}, run...), raw(`data: {"id":"c","choices":[],"usage":5}`+"\n\n"), end())...),
		stream("usage is a list", done(7, 3).odd("wrong_type"), append(append([]event{}, run...), raw(`data: {"id":"c","choices":[],"usage":[1]}`+"\n\n"), end())...),
		open("usage given twice", done(7, 3).odd("malformed"), sent(run...)+`data: {"choices":[],"usage":`+usageOf(7, 9)+`,"usage":`+usageOf(7, 1)+"}\n\n"+doneLine),
		stream("decreasing", done(7, 3).odd("decreasing"), part(0, "a", 7, 3), part(0, "b", 7, 2), total(7, 3), end()),
		cut(stream("decreasing, cut: the highest", done(7, 3).as("upstream_abort").odd("decreasing"), part(0, "a", 7, 3), part(0, "b", 7, 2))),
		stream("total is not the sum", done(7, 3), final(`{"prompt_tokens":7,"total_tokens":999,"completion_tokens":3}`)...),
		stream("negative running", done(7, 2).odd("negative"), running("-1")...),
		stream("fraction running", done(7, 2).odd("fractional"), running("0.5")...),
		stream("text running", done(7, 2).odd("wrong_type"), running(`"2"`)...),
		open("usage deeper in the document", done(7, 1), `data: {"choices":[{"index":0,"delta":{"content":"a"},"usage":`+usageOf(99, 99)+`}],"x":{"usage":`+usageOf(88, 88)+`},"usage":`+usageOf(7, 1)+"}\n\n"+total(7, 1).sent+doneLine).split(bytewise),
		open("usage in the text", done(7, 1), part(0, `","usage":{"prompt_tokens":99,"completion_tokens":99},"x":"`, 7, 1).sent+total(7, 1).sent+doneLine).split(bytewise),
		open("usage before choices", done(7, 1), `data: {"usage":`+usageOf(7, 1)+`,"choices":[{"index":0,"delta":{"content":"a"}}]}`+"\n\n"+total(7, 1).sent+doneLine).split(bytewise),
		stream("usage before choices, removed", done(7, 1),
			event{`data: {"usage":` + usageOf(7, 1) + `,"choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\n", `data: {"choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\n"}, total(7, 1), end()).split(bytewise),
		open("spaces in the JSON", done(7, 1), `data: { "choices" : [ { "index" : 0 , "delta" : { "content" : "a" } } ] , "usage" : { "prompt_tokens" : 7 , "completion_tokens" : 1 } }`+"\n\n"+total(7, 1).sent+doneLine).split(bytewise),
		open("keys written with escapes", done(7, 1), `data: {"choices":[{"index":0,"delta":{"content":"a"}}],"\u0075sage":{"prompt_tok\u0065ns":7,"completion_tokens":1}}`+"\n\n"+total(7, 1).sent+doneLine).split(bytewise),
		open("an event that is no JSON", done(7, 2).odd("malformed"), "data: {\"choices\":\n\n"+part(0, "a", 7, 1).sent+total(7, 2).sent+doneLine),
		open("truncated in the last event", done(7, 1).as("upstream_abort").odd("malformed"), part(0, "a", 7, 1).sent+`data: {"choices":[],"usage":{"prompt_tok`),
		open("details nested and unknown", done(20, 9).details(16, 4), totalWith(`{"prompt_tokens":20,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":16,"deep":{"cached_tokens":99}},"completion_tokens_details":{"reasoning_tokens":4}}`).sent+doneLine),
		open("details null", done(20, 9), totalWith(`{"prompt_tokens":20,"completion_tokens":9,"prompt_tokens_details":null,"completion_tokens_details":null}`).sent+doneLine),
	}
}

// bodyCases are chat answers that are no streams.
func bodyCases() []testCase {
	body := func(usage string) string {
		return `{"id":"c","object":"chat.completion","created":1,"model":"tiny","choices":[{"index":0,"message":{"role":"assistant","content":"a \"usage\":{\"completion_tokens\":77}"},"logprobs":null,"finish_reason":"stop"}],"usage":` + usage + `,"prompt_logprobs":[{"usage":{"completion_tokens":88}}],"kv_transfer_params":{"usage":{"prompt_tokens":99}}}`
	}
	chat := func(name string, w want, sends string) testCase {
		return testCase{name: name, route: "/v1/chat/completions", body: chatBody, sends: sends, want: w}
	}
	failed := chat("500 of the engine", done(0, 0).as("refused"), `{"error":{"message":"x","type":"InternalServerError","param":null,"code":500}}`)
	failed.reply.Status = 500
	refused := chat("400 of the engine", done(0, 0).as("refused"), `{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400},"usage":{"prompt_tokens":9}}`)
	refused.reply.Status = 400
	return []testCase{
		chat("plain", done(7, 3), body(usageOf(7, 3))).split(sampled),
		chat("n=2", done(7, 6), body(usageOf(7, 6))).asked(chatBodyTwo),
		chat("details", done(20, 9).details(16, 4), body(`{"prompt_tokens":20,"total_tokens":29,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":16},"completion_tokens_details":{"reasoning_tokens":4}}`)).split(bytewise),
		chat("usage first", done(7, 3), `{"usage":`+usageOf(7, 3)+`,"choices":[{"index":0,"message":{"content":"a"}}]}`).split(bytewise),
		chat("spaces and new lines", done(7, 3), "{\n  \"choices\": [],\n  \"usage\": {\n    \"prompt_tokens\": 7,\n    \"completion_tokens\": 3\n  }\n}\n").split(bytewise),
		chat("zero is zero", done(0, 0), body(usageOf(0, 0))),
		chat("no usage: an estimate of the text", guess("complete", 1), `{"choices":[{"index":0,"message":{"content":"some text"}}]}`),
		chat("usage null: an estimate", guess("complete", 1), body("null")),
		chat("negative: an estimate", guess("complete", 1).odd("negative"), body(`{"prompt_tokens":7,"completion_tokens":-3}`)),
		chat("count as text: an estimate", guess("complete", 1).odd("wrong_type"), body(`{"prompt_tokens":7,"completion_tokens":"3"}`)),
		chat("byte order mark", done(7, 3), "\ufeff"+body(usageOf(7, 3))).split(bytewise),
		chat("1 MiB of text", done(7, 3), `{"choices":[{"index":0,"message":{"content":"`+strings.Repeat("é", 1<<19)+`"}}],"usage":`+usageOf(7, 3)+`}`),
		chat("cut in the middle", guess("upstream_abort", 1), `{"choices":[{"index":0,"message":{"content":"some te`).ending("fin").slow(),
		chat("truncated, ended properly", guess("upstream_abort", 1).odd("malformed"), `{"choices":[{"index":0,"message":{"content":"some te`),
		refused, failed,
		{name: "alias", route: "/chat/completions", body: chatBody, sends: body(usageOf(7, 3)), want: done(7, 3)},
	}
}

// blockedCases escape metering, so that they are refused.
func blockedCases() []testCase {
	b := func(name, route, body string, status int, param string) testCase {
		return testCase{name: name, route: route, body: body, want: blocked(status, param)}
	}
	msgs := `"messages":[{"role":"user","content":"MARK"}]`
	return []testCase{
		b("encoding_format bytes, of what is no embedding", "/v1/chat/completions", `{"model":"MODEL","encoding_format":"bytes",`+msgs+`}`, 400, "encoding_format"),
		b("background", "/v1/responses", `{"model":"MODEL","input":"MARK","background":true}`, 400, "background"),
		b("beam search, chat", "/v1/chat/completions", `{"model":"MODEL","use_beam_search":true,"n":2,`+msgs+`}`, 400, "use_beam_search"),
		b("beam search, text", "/v1/completions", `{"model":"MODEL","use_beam_search":true,"prompt":"MARK"}`, 400, "use_beam_search"),
		b("best_of", "/v1/completions", `{"model":"MODEL","best_of":4,"prompt":"MARK"}`, 400, "best_of"),
		b("stream as a number", "/v1/chat/completions", `{"model":"MODEL","stream":1,`+msgs+`}`, 400, "stream"),
		b("stream as text", "/v1/chat/completions", `{"model":"MODEL","stream":"true",`+msgs+`}`, 400, "stream"),
		b("stream in capitals", "/v1/chat/completions", `{"model":"MODEL","Stream":true,`+msgs+`}`, 400, "stream"),
		b("stream twice", "/v1/chat/completions", `{"model":"MODEL","stream":false,"stream":true,`+msgs+`}`, 400, "stream"),
		b("n above the bound", "/v1/chat/completions", `{"model":"MODEL","n":16384,`+msgs+`}`, 400, "n"),
		b("n as a fraction", "/v1/chat/completions", `{"model":"MODEL","n":1.5,`+msgs+`}`, 400, "n"),
		b("stream_options without stream", "/v1/chat/completions", `{"model":"MODEL","stream_options":{"include_usage":true},`+msgs+`}`, 400, "stream_options"),
		b("no model", "/v1/chat/completions", `{`+msgs+`}`, 400, "model"),
		b("a model that nobody serves", "/v1/chat/completions", `{"model":"other",`+msgs+`}`, 404, "model"),
		b("batch route", "/v1/chat/completions/batch", `{"model":"MODEL",`+msgs+`}`, 404, ""),
		b("SageMaker route", "/invocations", `{"model":"MODEL",`+msgs+`}`, 404, ""),
		b("Cohere route", "/v2/embed", `{"model":"MODEL","texts":["MARK"]}`, 404, ""),
		b("raw generation", "/inference/v1/generate", `{"model":"MODEL","token_ids":[1]}`, 404, ""),
		b("generative scoring", "/generative_scoring", `{"model":"MODEL","query":"MARK"}`, 404, ""),
		b("speech", "/v1/audio/transcriptions", `{"model":"MODEL"}`, 404, ""),
	}
}

// codingCases have a content coding although the gateway asks for none.
func codingCases() []testCase {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(sent(part(0, "a", 7, 1), total(7, 1), end())))
	_ = z.Close()
	labelled := open("gzip, labelled: passed unread, an estimate", guess("complete", 0).odd("encoded"), zipped.String())
	labelled.reply = stack.Reply{Header: http.Header{"Content-Encoding": {"gzip"}}}
	unlabelled := open("gzip, not labelled", guess("upstream_abort", 0).odd("encoded"), zipped.String())
	wrong := open("plain, labelled identity", done(7, 1), sent(part(0, "a", 7, 1), total(7, 1), end()))
	wrong.reply = stack.Reply{Header: http.Header{"Content-Encoding": {"identity"}}}
	return []testCase{labelled, unlabelled, wrong}
}

// The routes whose shape is not chat's.

func completionsCases() []testCase {
	part := func(index int, text string, p, c int) event {
		head := `data: {"id":"t","object":"text_completion","created":1,"model":"tiny","choices":[{"index":` + string(rune('0'+index)) + `,"text":"` + text + `","finish_reason":null}]`
		return event{head + `,"usage":` + usageOf(p, c) + "}\n\n", head + "}\n\n"}
	}
	body := `{"id":"t","object":"text_completion","created":1,"model":"tiny","choices":[{"index":0,"text":"a b","logprobs":null,"finish_reason":"length"}],"usage":` + usageOf(9, 4) + `,"kv_transfer_params":null}`
	text := func(name, body string, w want, events ...event) testCase {
		return testCase{name: name, route: "/v1/completions", body: body, sends: sent(events...), client: seen(events...), want: w}
	}
	const (
		one  = `{"model":"MODEL","stream":true,"prompt":"MARK"}`
		list = `{"model":"MODEL","stream":true,"prompt":["MARK","two"]}`
		both = `{"model":"MODEL","stream":true,"n":2,"temperature":0.5,"prompt":["MARK","two"]}`
		ids  = `{"model":"MODEL","stream":true,"prompt":[1,2,3],"user":"MARK"}`
		many = `{"model":"MODEL","stream":true,"prompt":[[1,2],[3]],"user":"MARK"}`
	)
	two := []event{part(0, "a", 7, 1), part(1, "b", 2, 1), part(1, "c", 2, 2)}
	cut := text("a list of prompts, cut: each prompt once", list, done(9, 3).as("upstream_abort"), two...).ending("fin").slow()
	return []testCase{
		text("one prompt", one, done(7, 2), part(0, "a", 7, 1), part(0, "b", 7, 2), total(7, 2), end()).split(sampled),
		text("a list of prompts", list, done(9, 3), append(two, total(9, 3), end())...).split(bytewise),
		cut,
		text("two prompts, n=2, cut", both, done(9, 4).as("upstream_abort"), part(0, "a", 7, 1), part(1, "b", 7, 1), part(2, "c", 2, 1), part(3, "d", 2, 1)).ending("fin").slow(),
		text("token ids", ids, done(3, 1), part(0, "a", 3, 1), total(3, 1), end()),
		text("a list of lists of token ids", many, done(3, 2), part(0, "a", 2, 1), part(1, "b", 1, 1), total(3, 2), end()),
		{name: "not streamed", route: "/v1/completions", body: `{"model":"MODEL","prompt":["MARK","two"]}`, sends: body, want: done(9, 4), splits: bytewise},
		{name: "alias", route: "/completions", body: `{"model":"MODEL","prompt":"MARK"}`, sends: body, want: done(9, 4)},
	}
}

func poolingCases() []testCase {
	usage := `{"prompt_tokens":11,"total_tokens":11,"completion_tokens":0,"prompt_tokens_details":null,"completion_tokens_details":null}`
	embed := `{"id":"e","object":"list","created":1,"model":"tiny","data":[{"index":0,"object":"embedding","embedding":[0.1,-0.2]}],"usage":` + usage + `}`
	score := `{"id":"s","object":"list","created":1,"model":"tiny","data":[{"index":0,"object":"score","score":0.5}],"usage":` + usage + `}`
	rank := `{"id":"r","model":"tiny","usage":{"prompt_tokens":11,"total_tokens":11},"results":[{"index":0,"document":{"text":"\"usage\":{"},"relevance_score":0.5}]}`
	c := func(name, route, body, sends string) testCase {
		return testCase{name: name, route: route, body: body, sends: sends, want: done(11, 0), splits: bytewise}
	}
	const (
		e = `{"model":"MODEL","input":["MARK","b"]}`
		s = `{"model":"MODEL","text_1":"MARK","text_2":["b"]}`
		r = `{"model":"MODEL","query":"MARK","documents":["a","b"]}`
	)
	float := c("embeddings, base64", "/v1/embeddings", `{"model":"MODEL","input":"MARK","encoding_format":"base64"}`, strings.Replace(embed, "[0.1,-0.2]", `"AAAA"`, 1))
	// Bytes: vLLM puts the usage into a header, or, where only bytes are asked for, nowhere.
	raw := c("embeddings, bytes", "/v1/embeddings", `{"model":"MODEL","input":"MARK","encoding_format":"bytes"}`, "\x00\x01{\xff[")
	raw.reply = stack.Reply{ContentType: "application/octet-stream", Header: http.Header{"Metadata": {`{"id":"e","created":1,"model":"tiny","data":[{"index":0,"start":0,"end":5}],"usage":{"prompt_tokens":11,"total_tokens":11}}`}}}
	only := c("embeddings, bytes only: an estimate", "/v1/embeddings", `{"model":"MODEL","input":"MARK","encoding_format":"bytes_only"}`, "\x00\x01{\xff[")
	only.reply, only.want = stack.Reply{ContentType: "application/octet-stream"}, guess("complete", 0)
	return []testCase{
		raw, only,
		c("embeddings", "/v1/embeddings", e, embed), float, c("embeddings, alias", "/embeddings", e, embed),
		c("score", "/v1/score", s, score), c("score, alias", "/score", s, score),
		c("pooling", "/pooling", e, embed), c("classify", "/classify", e, score), c("rerank, version 2", "/v2/rerank", r, rank),
		c("rerank, usage in front", "/v1/rerank", r, rank), c("rerank, alias", "/rerank", r, rank),
		{name: "no usage: an estimate", route: "/v1/embeddings", body: e, sends: `{"data":[]}`, want: guess("complete", 0)},
	}
}

func freeCases() []testCase {
	c := func(route, body, sends string) testCase {
		return testCase{name: route[1:], route: route, body: body, sends: sends, want: done(0, 0)}
	}
	return []testCase{
		c("/tokenize", `{"model":"MODEL","prompt":"MARK"}`, `{"count":3,"max_model_len":1024,"tokens":[1,2,3],"usage":{"prompt_tokens":99}}`),
		c("/detokenize", `{"model":"MODEL","tokens":[1,2],"user":"MARK"}`, `{"prompt":"a b"}`),
		c("/v1/messages/count_tokens", `{"model":"MODEL","messages":[{"role":"user","content":"MARK"}]}`, `{"input_tokens":9}`),
	}
}

// matrix is the accounting matrix: every route, streamed or not, through every end.
func (s *suite) matrix(t *testing.T) {
	const msgs = `"messages":[{"role":"user","content":"MARK"}]`
	routes := []struct {
		route, body string
		streams     bool
		free        bool
	}{
		{"/v1/chat/completions", `{"model":"MODEL",` + msgs + `}`, true, false},
		{"/chat/completions", `{"model":"MODEL",` + msgs + `}`, true, false},
		{"/v1/completions", `{"model":"MODEL","prompt":"MARK"}`, true, false},
		{"/completions", `{"model":"MODEL","prompt":"MARK"}`, true, false},
		{"/v1/responses", `{"model":"MODEL","input":"MARK"}`, true, false},
		{"/v1/messages", `{"model":"MODEL","max_tokens":9,` + msgs + `}`, true, false},
		{"/v1/embeddings", `{"model":"MODEL","input":"MARK"}`, false, false},
		{"/embeddings", `{"model":"MODEL","input":"MARK"}`, false, false},
		{"/v1/score", `{"model":"MODEL","text_1":"MARK","text_2":"b"}`, false, false},
		{"/score", `{"model":"MODEL","text_1":"MARK","text_2":"b"}`, false, false},
		{"/v1/rerank", `{"model":"MODEL","query":"MARK","documents":["b"]}`, false, false},
		{"/rerank", `{"model":"MODEL","query":"MARK","documents":["b"]}`, false, false},
		{"/v1/messages/count_tokens", `{"model":"MODEL",` + msgs + `}`, false, true},
		{"/tokenize", `{"model":"MODEL","prompt":"MARK"}`, false, true},
		{"/detokenize", `{"model":"MODEL","tokens":[1],"user":"MARK"}`, false, true},
	}
	for _, r := range routes {
		bodies := map[string]string{"not streamed": r.body}
		if r.streams {
			bodies["streamed"] = strings.Replace(r.body, `"MODEL",`, `"MODEL","stream":true,`, 1)
		}
		for how, body := range bodies {
			abort := guess("client_abort", 0)
			if r.free {
				abort = want{reason: "client_abort", quality: "exact", cached: -1, reasoning: -1}
			}
			const refusal = `{"error":{"message":"x","type":"BadRequestError","param":null,"code":400}}`
			s.run(t, "matrix", testCase{
				name: r.route[1:] + " " + how + ", refused with 400", route: r.route, body: body, sends: refusal,
				reply: stack.Reply{Status: 400, ContentType: "application/json"}, want: done(0, 0).as("refused"),
			})
			s.run(t, "matrix", testCase{
				name: r.route[1:] + " " + how + ", failed with 500", route: r.route, body: body, sends: refusal,
				reply: stack.Reply{Status: 500, ContentType: "application/json"}, want: done(0, 0).as("refused"),
			})
			s.run(t, "matrix", testCase{
				name: r.route[1:] + " " + how + ", client leaves before the answer", route: r.route, body: body,
				reply: stack.Reply{End: "hang-before"}, leaves: true, empty: true, want: abort,
			})
		}
	}
}
