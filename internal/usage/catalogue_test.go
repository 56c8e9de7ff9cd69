package usage_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/usage"
)

// want is a report without what a case does not speak of.
type want struct {
	prompt, completion int64
	seen, final        bool
	end                usage.End
	text, deltas       int64
	anomalies          map[usage.Anomaly]uint32
}

func (w want) report() usage.Report {
	r := usage.Report{
		Counts: usage.Counts{Prompt: w.prompt, Completion: w.completion, Cached: usage.Unsaid, Reasoning: usage.Unsaid},
		Seen:   w.seen, Final: w.final, End: w.end, TextBytes: w.text, Deltas: w.deltas,
	}
	for a, n := range w.anomalies {
		r.Anomalies[a] = n
	}
	return r
}

// What most cases are made of: one running event, one final one, the end.
const (
	running = `{"choices":[{"index":0,"delta":{"content":"hé"}}],"usage":{"prompt_tokens":7,"completion_tokens":2}}`
	final   = `{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}`
	stream  = "data: " + running + "\n\ndata: " + final + "\n\ndata: [DONE]\n\n"
)

// whole is what the meter says of stream, ran what it says of running alone.
var (
	whole = want{prompt: 7, completion: 3, seen: true, final: true, end: usage.Done, text: 3, deltas: 1}
	ran   = want{prompt: 7, completion: 2, seen: true, text: 3, deltas: 1}
	mute  = want{prompt: usage.Unsaid, completion: usage.Unsaid}
)

func with(w want, change func(*want)) want {
	change(&w)
	return w
}

func noted(w want, kinds ...usage.Anomaly) want {
	w.anomalies = map[usage.Anomaly]uint32{}
	for _, a := range kinds {
		w.anomalies[a]++
	}
	return w
}

type sseCase struct {
	name, body string
	want       want
}

func checkSSE(t *testing.T, o usage.Options, cases []sseCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			o.SSE = true
			m := usage.NewMeter(o)
			for _, pieces := range ways(tc.body) {
				m.Reset(o)
				got, out := feed(m, pieces...)
				if diff := cmp.Diff(tc.want.report(), got); diff != "" {
					t.Fatalf("in %d pieces (-want +got)\n%s", len(pieces), diff)
				}
				if string(out) != tc.body {
					t.Fatalf("got %q", out)
				}
			}
		})
	}
}

func TestEventStreamFormat(t *testing.T) {
	crlf := strings.ReplaceAll(stream, "\n", "\r\n")
	checkSSE(t, usage.Options{}, []sseCase{
		{"LF", stream, whole},
		{"CRLF", crlf, whole},
		{"CR", strings.ReplaceAll(stream, "\n", "\r"), whole},
		{"mixed line ends", "data: " + running + "\r\n\ndata: " + final + "\r\rdata: [DONE]\n\r\n", whole},
		{"no line end at the end", strings.TrimRight(stream, "\n"), whole},
		{"no blank line at the end", strings.TrimSuffix(stream, "\n"), whole},
		{"byte order mark", "\xef\xbb\xbf" + stream, whole},
		{"byte order mark and CRLF", "\xef\xbb\xbf" + crlf, whole},
		{"two byte order marks", "\xef\xbb\xbf\xef\xbb\xbf" + stream, with(whole, func(w *want) { w.text, w.deltas = 0, 0 })},
		{"byte order mark in the middle", "data: " + running + "\n\n\xef\xbb\xbfdata: " + final + "\n\n", ran},
		{"half a byte order mark", "\xef\xbb" + stream, with(whole, func(w *want) { w.text, w.deltas = 0, 0 })},
		{"half a byte order mark on a line of its own", "\xef\xbb\n" + stream, whole},
		{"half a byte order mark before a colon", "\xef:\n" + stream, whole},
		{"comment", ": keep-alive\n\n" + stream, whole},
		{"comment without a space", ":\n:x\n" + stream, whole},
		{"comment inside an event", "data: " + running + "\n: data: [DONE]\n\n", ran},
		{"comment at the end", stream + ":", whole},
		{"no colon", "data\n\ndata\ndata\n\n" + stream, whole},
		{"no space", "data:" + running + "\n\n", ran},
		{"two spaces", "data:  " + running + "\n\n", ran},
		{"a tab", "data:\t" + running + "\n\n", ran},
		{"a space before the colon", "data : " + final + "\n\ndata: " + running + "\n\n", ran},
		{"unknown field", "datum: " + final + "\ndata2: x\nDATA: " + final + "\ndata: " + running + "\n\n", ran},
		{"empty data", "data:\n\ndata: \n\n" + stream, whole},
		{"event and id with NUL", "event: x\x00\nid: 1\x00\ndata: " + running + "\n\n", ran},
		{"bad retry", "retry: soon\ndata: " + running + "\n\n", ran},
		{"only an event line", "event: error\n\n" + stream, whole},
		{"data of several lines", "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hé\"}}],\ndata: \"usage\":{\"prompt_tokens\":\ndata:7\ndata:\ndata: ,\"completion_tokens\":2\ndata\ndata: }}\n\n", ran},
		{"empty line of data first", "data:\ndata: " + running + "\n\n", ran},
		{"number broken by lines", "data: {\"choices\":[],\"usage\":{\"completion_tokens\":1\ndata: 2}}\n\n", noted(mute, usage.Malformed)},
		{"two documents in one event", "data: " + final + "\ndata: " + final + "\n\n", noted(mute, usage.Malformed)},
		{"blank lines", "\n\n\r\n\r" + stream + "\n\n\n", whole},
		{"nothing", "", mute},
	})
}

func TestTerminator(t *testing.T) {
	done := with(mute, func(w *want) { w.end = usage.Done })
	open := func(w want) want { return with(w, func(w *want) { w.end = usage.Open }) }
	checkSSE(t, usage.Options{}, []sseCase{
		{"missing", strings.TrimSuffix(stream, "data: [DONE]\n\n"), open(whole)},
		{"twice", stream + "data: [DONE]\n\n", whole},
		{"spaced before", "data:  [DONE]\n\n", noted(mute, usage.Malformed)},
		{"spaced behind", "data: [DONE] \n\n", noted(mute, usage.Malformed)},
		{"no space", "data:[DONE]\n\n", done},
		{"lower case", "data: [done]\n\n", noted(mute, usage.Malformed)},
		{"longer", "data: [DONE]]\n\n", noted(mute, usage.Malformed)},
		{"shorter", "data: [DONE\n\n", noted(mute, usage.Malformed)},
		{"of two lines", "data: [DONE]\ndata: more\n\n", noted(mute, usage.Malformed)},
		{"of two lines, the second empty", "data: [DONE]\ndata\n\n", noted(mute, usage.Malformed)},
		{"over two lines", "data: [DO\ndata: NE]\n\n", noted(mute, usage.Malformed)},
		{"inside content", `data: {"choices":[{"index":0,"delta":{"content":"data: [DONE]\n\ndata: [DONE]"}}]}` + "\n\n", with(mute, func(w *want) { w.text, w.deltas = 26, 1 })},
		{"as a string", "data: \"[DONE]\"\n\n", noted(mute, usage.Malformed)},
		{"as a comment", ": [DONE]\n\n", mute},
		{"as an event name", "event: [DONE]\ndata:\n\n", mute},
		{"before the usage", "data: [DONE]\n\ndata: " + final + "\n\n", with(whole, func(w *want) { w.text, w.deltas = 0, 0 })},
		{"with bytes behind", stream + "data: {\"choices\":[", noted(whole, usage.Malformed)},
	})
	checkSSE(t, usage.Options{Format: usage.Responses}, []sseCase{{"responses have none", "data: [DONE]\n\n", mute}})
	checkSSE(t, usage.Options{Format: usage.Messages}, []sseCase{{"messages have none", "data: [DONE]\n\n", mute}})
}

func TestUTF8(t *testing.T) {
	text := func(content string, n int64) sseCase {
		return sseCase{fmt.Sprintf("%q", content), `data: {"choices":[{"index":0,"delta":{"content":"` + content + `"}}]}` + "\n\n", with(mute, func(w *want) { w.text, w.deltas = n, 1 })}
	}
	checkSSE(t, usage.Options{}, []sseCase{
		text("é", 2), text("€", 3), text("😀", 4), text("👩‍👩‍👧", 18), text("a\xff", 2), text("\xc0\xaf", 2), text("\xed\xa0\x80", 3),
		text(`\u00e9`, 2), text(`\u20ac`, 3), text(`\ud83d\ude00`, 4), text(`\uD83D`, 3), text(`\ude00`, 3), text(`\ud83dx\ude00`, 7), text(`\ud83d\n\ude00`, 7), text(`\ud83d\ud83d\ude00`, 7),
		text(`\"\\\/\b\f\n\r\t`, 8), text(`\u0000`, 1), text(`\\u00e9`, 6),
	})
}

func TestUsageValues(t *testing.T) {
	chunk := func(name, usageJSON string, w want) sseCase {
		return sseCase{name, `data: {"choices":[{"index":0}],"usage":` + usageJSON + "}\n\n", w}
	}
	said := want{prompt: 7, completion: usage.Unsaid, seen: true}
	checkSSE(t, usage.Options{}, []sseCase{
		{"missing", `data: {"choices":[{"index":0}]}` + "\n\n", mute},
		chunk("null", "null", mute),
		chunk("empty", "{}", mute),
		chunk("zero", `{"prompt_tokens":0,"completion_tokens":0}`, want{seen: true}),
		chunk("null count", `{"prompt_tokens":7,"completion_tokens":null}`, said),
		chunk("negative", `{"prompt_tokens":7,"completion_tokens":-1}`, noted(said, usage.Negative)),
		chunk("minus zero", `{"prompt_tokens":7,"completion_tokens":-0}`, noted(said, usage.Negative)),
		chunk("1.5", `{"prompt_tokens":7,"completion_tokens":1.5}`, noted(said, usage.Fractional)),
		chunk("1e3", `{"prompt_tokens":7,"completion_tokens":1e3}`, noted(said, usage.Fractional)),
		chunk("string", `{"prompt_tokens":7,"completion_tokens":"12"}`, noted(said, usage.WrongType)),
		chunk("true", `{"prompt_tokens":7,"completion_tokens":true}`, noted(said, usage.WrongType)),
		chunk("list", `{"prompt_tokens":7,"completion_tokens":[12]}`, noted(said, usage.WrongType)),
		chunk("object", `{"prompt_tokens":7,"completion_tokens":{"completion_tokens":12}}`, noted(said, usage.WrongType)),
		chunk("largest", `{"prompt_tokens":7,"completion_tokens":9223372036854775807}`, want{prompt: 7, completion: 9223372036854775807, seen: true}),
		chunk("beyond int64", `{"prompt_tokens":7,"completion_tokens":9223372036854775808}`, noted(said, usage.Overflow)),
		chunk("far beyond int64", `{"prompt_tokens":7,"completion_tokens":`+strings.Repeat("9", 200)+`}`, noted(said, usage.Overflow)),
		chunk("NaN", `{"prompt_tokens":7,"completion_tokens":NaN}`, noted(said, usage.WrongType)),
		chunk("leading zero", `{"prompt_tokens":7,"completion_tokens":012}`, noted(said, usage.WrongType)),
		chunk("total is not the sum", `{"prompt_tokens":7,"total_tokens":1,"completion_tokens":2}`, want{prompt: 7, completion: 2, seen: true}),
		chunk("nested counts", `{"prompt_tokens":7,"prompt_tokens_details":{"completion_tokens":9,"prompt_tokens":9},"completion_tokens":2}`, want{prompt: 7, completion: 2, seen: true}),
		chunk("details of the wrong type", `{"prompt_tokens":7,"prompt_tokens_details":3,"completion_tokens_details":"x"}`, noted(said, usage.WrongType, usage.WrongType)),
		chunk("duplicate count", `{"completion_tokens":1,"prompt_tokens":7,"completion_tokens":2}`, noted(said, usage.Malformed)),
		chunk("duplicate usage", `{"completion_tokens":1},"usage":{"completion_tokens":2}`, noted(mute, usage.Malformed)),
		chunk("null and usage", `null,"usage":{"completion_tokens":2}`, noted(mute, usage.Malformed)),
		chunk("usage is a number", "12", noted(mute, usage.WrongType)),
		chunk("usage is a list", `[{"completion_tokens":2}]`, noted(mute, usage.WrongType)),
		chunk("escaped keys", `{"p\u0072ompt_tokens":7,"\u0063ompletion_tokens":2}`, want{prompt: 7, completion: 2, seen: true}),
		chunk("spaced", ` { "prompt_tokens" : 7 , `+"\t"+`"completion_tokens" : 2 } `, want{prompt: 7, completion: 2, seen: true}),
		chunk("truncated", `{"completion_tokens":2`, noted(mute, usage.Malformed)),
		{"usage first and an escaped key", `data: {"us\u0061ge":{"completion_tokens":2},"choices":[{"index":0}]}` + "\n\n", want{prompt: usage.Unsaid, completion: 2, seen: true}},
		{"deeper usage and usage in text", `data: {"x":{"usage":{"completion_tokens":9}},"choices":[{"index":0,"usage":{"completion_tokens":9},"delta":{"content":"\"usage\":{\"completion_tokens\":9}"}}]}` + "\n\n", with(mute, func(w *want) { w.text, w.deltas = 31, 1 })},
		{"decreasing", "data: " + running + "\n\ndata: " + strings.ReplaceAll(running, ":2", ":1") + "\n\n", with(noted(ran, usage.Decreasing), func(w *want) { w.text, w.deltas = 6, 2 })},
		{"trailing comma", `data: {"choices":[],"usage":{"completion_tokens":2,}}` + "\n\n", noted(mute, usage.Malformed)},
		{"no comma", `data: {"choices":[] "usage":{"completion_tokens":2}}` + "\n\n", noted(mute, usage.Malformed)},
		{"wrong bracket", `data: {"choices":[],"usage":{"completion_tokens":2]}` + "\n\n", noted(mute, usage.Malformed)},
		{"final nonsense is not final", "data: " + running + "\n\n" + `data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":-3}}` + "\n\n", noted(ran, usage.Negative)},
		{"no choices key is final", `data: {"usage":{"prompt_tokens":7,"completion_tokens":3}}` + "\n\n", want{prompt: 7, completion: 3, seen: true, final: true}},
		{"a lower final count replaces the running one", "data: " + running + "\n\n" + `data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}` + "\n\n", with(ran, func(w *want) { w.prompt, w.completion, w.final = 5, 1, true })},
	})
}

func TestErrorsInsideAnAnswer(t *testing.T) {
	failed := func(w want) want { return with(w, func(w *want) { w.end = usage.Failed }) }
	checkSSE(t, usage.Options{}, []sseCase{
		{"spaced as vLLM writes it", "data: " + running + "\n\n" + `data: {"error": {"message": "x", "code": 500}}` + "\n\ndata: [DONE]\n\n", failed(ran)},
		{"string", `data: {"error":"no"}` + "\n\n", failed(mute)},
		{"null", `data: {"error":null}` + "\n\ndata: [DONE]\n\n", with(mute, func(w *want) { w.end = usage.Done })},
		{"deeper", `data: {"choices":[{"index":0,"error":{}}]}` + "\n\n", mute},
		{"in text", `data: {"choices":[{"index":0,"delta":{"content":"{\"error\":1}"}}]}` + "\n\n", with(mute, func(w *want) { w.text, w.deltas = 11, 1 })},
	})
	checkSSE(t, usage.Options{Format: usage.Messages}, []sseCase{
		{"event line", "event: error\ndata: {\"x\":1}\n\n", failed(mute)},
		{"type", `data: {"type":"error","error":{"type":"x"}}` + "\n\n", failed(mute)},
	})
	checkSSE(t, usage.Options{Format: usage.Responses}, []sseCase{
		{"event line", "event: error\ndata: {\"x\":1}\n\n", failed(mute)},
		{"failed with usage", `data: {"type":"response.failed","response":{"status":"failed","error":{"code":"x"},"usage":{"input_tokens":4,"output_tokens":2}}}` + "\n\n", want{prompt: 4, completion: 2, seen: true, final: true, end: usage.Failed}},
	})
}

func TestChoicesAndPrompts(t *testing.T) {
	chunk := func(index string, prompt, completion int) string {
		return fmt.Sprintf(`data: {"choices":[{"index":%s}],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}`+"\n\n", index, prompt, completion)
	}
	checkSSE(t, usage.Options{Format: usage.Completions, Choices: 6, Prompts: 3}, []sseCase{
		{"once per prompt, last per choice", chunk("0", 10, 1) + chunk("1", 10, 2) + chunk("4", 20, 3) + chunk("0", 10, 5) + chunk("5", 20, 1), want{prompt: 30, completion: 11, seen: true}},
		{"index too large", chunk("6", 1, 1), noted(mute, usage.BadIndex)},
		{"index negative", chunk("-1", 1, 1), noted(mute, usage.BadIndex)},
		{"index fractional", chunk("1.0", 1, 1), noted(mute, usage.BadIndex)},
		{"index a string", chunk(`"1"`, 1, 1), noted(mute, usage.BadIndex)},
		{"index huge", chunk("99999999999999999999", 1, 1), noted(mute, usage.BadIndex)},
		{"index twice", chunk(`1,"index":2`, 1, 1), noted(mute, usage.BadIndex)},
		{"index missing", `data: {"choices":[{}],"usage":{"completion_tokens":1}}` + "\n\n", noted(mute, usage.BadIndex)},
		{"sum beyond int64", chunk("0", 1, 9223372036854775807) + chunk("1", 1, 1), noted(want{prompt: 1, completion: 9223372036854775807, seen: true}, usage.Overflow)},
	})
	checkSSE(t, usage.Options{Choices: 5, Prompts: 3}, []sseCase{
		{"choices that are no multiple: the rest is of the last prompt", chunk("4", 1, 1) + chunk("2", 1, 1) + chunk("0", 1, 1), want{prompt: 2, completion: 3, seen: true}},
	})
	checkSSE(t, usage.Options{Choices: -1, Prompts: 9}, []sseCase{
		{"at least one", chunk("0", 2, 1), want{prompt: 2, completion: 1, seen: true}},
	})
}

func TestTextOfEveryFormat(t *testing.T) {
	texts := func(n, deltas int64) want {
		return with(mute, func(w *want) { w.text, w.deltas = n, deltas })
	}
	event := func(s string) string { return "data: " + s + "\n\n" }
	checkSSE(t, usage.Options{}, []sseCase{
		{"reasoning", event(`{"choices":[{"index":0,"delta":{"reasoning":"ab"}}]}`), texts(2, 1)},
		{"reasoning under both names", event(`{"choices":[{"index":0,"delta":{"reasoning":"ab","reasoning_content":"ab","content":"c"}}]}`), texts(3, 1)},
		{"tool calls", event(`{"choices":[{"index":0,"delta":{"content":null,"tool_calls":[{"index":0,"function":{"name":"add","arguments":"[1,"}}]}}]}`), texts(3, 1)},
		{"empty", event(`{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`), mute},
	})
	checkSSE(t, usage.Options{Format: usage.Completions}, []sseCase{{"text", event(`{"choices":[{"index":0,"text":"abc"}]}`), texts(3, 1)}})
	checkSSE(t, usage.Options{Format: usage.Responses}, []sseCase{
		{"text", event(`{"delta":"abc","type":"response.output_text.delta"}`) + event(`{"type":"response.output_text.done","text":"abc"}`), texts(3, 1)},
		{"arguments", event(`{"type":"response.function_call_arguments.delta","delta":"abc"}`), texts(3, 1)},
		{"reasoning", event(`{"type":"response.reasoning_text.delta","delta":"abc"}`), texts(3, 1)},
		{"named by the event line", "event: response.output_text.delta\n" + event(`{"delta":"abc"}`), texts(3, 1)},
		{"audio is not text", event(`{"type":"response.audio.delta","delta":"abc"}`), mute},
		{"name too long", event(`{"type":"response.` + strings.Repeat("x", 60) + `.delta","delta":"abc"}`), mute},
	})
	checkSSE(t, usage.Options{Format: usage.Messages}, []sseCase{
		{"text", event(`{"type":"content_block_delta","delta":{"type":"text_delta","text":"ab"}}`) + event(`{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"cde"}}`) + event(`{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"f"}}`), texts(6, 3)},
		{"start, then delta replaces", event(`{"type":"message_start","message":{"usage":{"input_tokens":275,"output_tokens":0}}}`) + event(`{"type":"message_delta","usage":{"input_tokens":19,"output_tokens":2,"cache_creation_input_tokens":1}}`) + event(`{"type":"message_stop"}`), want{prompt: 20, completion: 2, seen: true, final: true, end: usage.Done}},
		{"start alone", event(`{"type":"message_start","message":{"usage":{"input_tokens":275,"output_tokens":0}}}`), want{prompt: 275, seen: true}},
		{"delta without input", event(`{"type":"message_start","message":{"usage":{"input_tokens":275,"output_tokens":0}}}`) + event(`{"type":"message_delta","usage":{"output_tokens":2}}`), want{prompt: 275, completion: 2, seen: true, final: true}},
		{"sum beyond int64", event(`{"type":"message_delta","usage":{"input_tokens":9223372036854775807,"cache_creation_input_tokens":1,"output_tokens":2}}`), noted(want{prompt: 9223372036854775807, completion: 2, seen: true}, usage.Overflow)},
	})
}

func TestContentCodings(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprint(z, stream)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	unread := noted(mute, usage.Encoded).report()
	for _, tc := range []struct {
		name string
		o    usage.Options
		body string
	}{
		{"said", usage.Options{SSE: true, Encoded: true, StripFinal: true}, stream},
		{"said of JSON", usage.Options{Encoded: true}, final},
		{"gzip that nobody spoke of", usage.Options{SSE: true, StripFinal: true}, zipped.String()},
		{"gzip JSON that nobody spoke of", usage.Options{}, zipped.String()},
		{"zstd that nobody spoke of", usage.Options{}, "\x28\xb5\x2f\xfd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, pieces := range ways(tc.body) {
				got, out := feed(usage.NewMeter(tc.o), pieces...)
				if diff := cmp.Diff(unread, got); diff != "" || string(out) != tc.body {
					t.Fatalf("(-want +got)\n%s", diff)
				}
			}
		})
	}
}
