package usage_test

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/usage"
)

var identity = regexp.MustCompile(`"id":"[^"]*"|"created":\d+`)

func TestStrippedStreamIsWhatVLLMSendsWithoutUsage(t *testing.T) {
	for _, tc := range []struct {
		name, from, like string
		final            bool
	}{
		{"chat without usage", "base/chat_stream_cont", "base/chat_stream", true},
		{"chat with usage at the end", "base/chat_stream_cont", "base/chat_stream_usage", false},
		{"chat of two choices", "base/chat_stream_cont_n2", "base/n2_usage_only_stream", false},
		{"completions without usage", "base/comp_stream_cont", "base/comp_stream", true},
		{"completions with usage at the end", "base/comp_stream_cont", "base/comp_stream_usage", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, like := load(t, tc.from), load(t, tc.like)
			from.o.StripRunning, from.o.StripFinal = true, tc.final
			report, out := feed(usage.NewMeter(from.o), from.body)
			if !report.Final {
				t.Error("the usage was stripped, not read")
			}
			got := identity.ReplaceAllString(string(out), "*")
			want := identity.ReplaceAllString(string(like.body), "*")
			wantLines, gotLines := lines(want), lines(got)
			if from.o.Choices > 1 { // they come in any order
				slices.Sort(wantLines)
				slices.Sort(gotLines)
			}
			if diff := cmp.Diff(wantLines, gotLines); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// lines are the lines of a stream, the text of the model left out: that is not
// the same in every recording.
func lines(s string) []string {
	return strings.Split(regexp.MustCompile(`"content":"[^"]*"`).ReplaceAllString(s, `"content":"*"`), "\n")
}

func TestStripKeepsEverythingElse(t *testing.T) {
	for _, rec := range loadAll(t) {
		if !rec.o.SSE {
			continue
		}
		for _, o := range variants(rec.o) {
			_, out := feed(usage.NewMeter(o), rec.body)
			want := rec.body
			if o.Format == usage.Chat || o.Format == usage.Completions {
				if diff := cmp.Diff(strip(o, string(rec.body)), strip(usage.Options{}, string(out))); diff != "" {
					t.Errorf("%s with %+v (-want +got)\n%s", rec.name, o, diff)
				}
				if o.StripFinal || o.StripRunning {
					continue
				}
			}
			if !bytes.Equal(out, want) {
				t.Errorf("%s with %+v: the bytes changed", rec.name, o)
			}
		}
	}
}

func TestStripTakesOneComma(t *testing.T) {
	both := usage.Options{SSE: true, StripFinal: true, StripRunning: true}
	for _, tc := range []struct {
		name, in, want string
		o              usage.Options
	}{
		{"last", `{"choices":[{"index":0}],"usage":{"completion_tokens":1}}`, `{"choices":[{"index":0}]}`, both},
		{"first", `{"usage":{"completion_tokens":1},"choices":[{"index":0}]}`, `{"choices":[{"index":0}]}`, both},
		{"middle", `{"id":"x","usage":{"completion_tokens":1},"choices":[{"index":0}]}`, `{"id":"x","choices":[{"index":0}]}`, both},
		{"spaced", `{ "id" : "x" , "usage" : { "completion_tokens" : 1 } , "choices" : [ { "index" : 0 } ] }`, `{ "id" : "x"  , "choices" : [ { "index" : 0 } ] }`, both},
		{"spaced and first", `{ "usage" : { "completion_tokens" : 1 } , "choices":[{"index":0}]}`, `{  "choices":[{"index":0}]}`, both},
		{"escaped key", `{"choices":[{"index":0}],"us\u0061ge":{"completion_tokens":1}}`, `{"choices":[{"index":0}]}`, both},
		{"brackets and quotes in strings", `{"choices":[{"index":0}],"usage":{"x":"}],\"","completion_tokens":1},"y":"}"}`, `{"choices":[{"index":0}],"y":"}"}`, both},
		{"null stays", `{"choices":[{"index":0}],"usage":null}`, `{"choices":[{"index":0}],"usage":null}`, both},
		{"nested stays", `{"choices":[{"index":0,"usage":{"completion_tokens":9}}],"x":{"usage":{}}}`, `{"choices":[{"index":0,"usage":{"completion_tokens":9}}],"x":{"usage":{}}}`, both},
		{"content stays", `{"choices":[{"index":0,"delta":{"content":",\"usage\":{}"}}]}`, `{"choices":[{"index":0,"delta":{"content":",\"usage\":{}"}}]}`, both},
		{"not well-formed stays", `{"choices":[{"index":0}],"usage":{"completion_tokens":1}`, `{"choices":[{"index":0}],"usage":{"completion_tokens":1}`, both},
		{"duplicate stays", `{"usage":{"completion_tokens":1},"choices":[{"index":0}],"usage":{}}`, `{"usage":{"completion_tokens":1},"choices":[{"index":0}],"usage":{}}`, both},
		{"error stays", `{"error":{"code":500},"choices":[],"usage":{}}`, `{"error":{"code":500},"choices":[],"usage":{}}`, both},
		{"running only", `{"choices":[],"usage":{"completion_tokens":1}}`, `{"choices":[],"usage":{"completion_tokens":1}}`, usage.Options{SSE: true, StripRunning: true}},
		{"final only", `{"choices":[{"index":0}],"usage":{"completion_tokens":1}}`, `{"choices":[{"index":0}],"usage":{"completion_tokens":1}}`, usage.Options{SSE: true, StripFinal: true}},
		{"responses have nothing to strip", `{"usage":{"completion_tokens":1},"choices":[{}]}`, `{"usage":{"completion_tokens":1},"choices":[{}]}`, usage.Options{Format: usage.Responses, SSE: true, StripRunning: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, pieces := range ways("data: " + tc.in + "\n\n") {
				if _, out := feed(usage.NewMeter(tc.o), pieces...); string(out) != "data: "+tc.want+"\n\n" {
					t.Fatalf("got %q, want %q", out, "data: "+tc.want+"\n\n")
				}
			}
		})
	}
}

// ways are some ways to cut a body: whole, every two-way split, byte by byte.
func ways(body string) [][][]byte {
	b := []byte(body)
	all := [][][]byte{{b}, bytewise(b)}
	for i := range b {
		all = append(all, split(b, i))
	}
	return all
}

func TestDroppedEventLeavesNoLineEnds(t *testing.T) {
	final := `data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`
	for _, end := range []string{"\n", "\r", "\r\n"} {
		body := "\xef\xbb\xbf: hello" + end + end + "data: 1" + end + end + final + end + end + final + end + end + ": bye" + end + end + "data: [DONE]" + end + end
		want := strings.ReplaceAll(body, final+end+end, "")
		for _, pieces := range ways(body) {
			if _, out := feed(usage.NewMeter(usage.Options{SSE: true, StripFinal: true}), pieces...); string(out) != want {
				t.Fatalf("line end %q: got %q, want %q", end, out, want)
			}
		}
	}
}

func TestTheFingerprintMovesBackToTheLastChunk(t *testing.T) {
	const (
		ended  = `{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]%s}`
		moved  = `,"system_fingerprint":"f}"`
		final  = `data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2},"system_fingerprint":"f}"}`
		open   = `data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}`
		done   = `data: [DONE]`
		o      = "data: "
		usage1 = `,"usage":{"completion_tokens":2}`
	)
	with := func(member string) string { return o + strings.Replace(ended, "%s", member, 1) }
	for name, tc := range map[string]struct{ in, want []string }{
		"usage follows":          {[]string{open, with(usage1), final, done}, []string{open, with(moved), done}},
		"no usage follows":       {[]string{open, with(usage1), done}, []string{open, with(""), done}},
		"another choice follows": {[]string{with(usage1), open, final, done}, []string{with(""), open, done}},
		"two choices end":        {[]string{with(usage1), with(usage1), final, done}, []string{with(""), with(moved), done}},
		"nothing follows":        {[]string{open, with(usage1)}, []string{open, with("")}},
		"no finish":              {[]string{open, final, done}, []string{open, done}},
		"a comment between":      {[]string{with(usage1), ": keep-alive", final, done}, []string{with(""), ": keep-alive", done}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, end := range []string{"\n", "\r", "\r\n"} {
				body, want := strings.Join(tc.in, end+end)+end+end, strings.Join(tc.want, end+end)+end+end
				for _, pieces := range ways(body) {
					m := usage.NewMeter(usage.Options{SSE: true, StripFinal: true, StripRunning: true})
					if _, out := feed(m, pieces...); string(out) != want {
						t.Fatalf("line end %q: got %q, want %q", end, out, want)
					}
				}
			}
		})
	}
}

func TestUsageOverSeveralLinesIsStripped(t *testing.T) {
	body := "id: 7\ndata: {\"choices\":[{\"index\":0}],\"usage\":\ndata: {\"completion_tokens\":\ndata: 3}}\nretry: 1\n\n"
	want := "id: 7\ndata: {\"choices\":[{\"index\":0}]}\nretry: 1\n\n"
	for _, pieces := range ways(body) {
		r, out := feed(usage.NewMeter(usage.Options{SSE: true, StripRunning: true}), pieces...)
		if string(out) != want || r.Counts.Completion != 3 {
			t.Fatalf("got %q and %d, want %q", out, r.Counts.Completion, want)
		}
	}
}

func TestOnlyIncompleteEventsAreHeldAndOnlyForAStrip(t *testing.T) {
	first, second := []byte("data: {\"choices\":[{\"index\":0}]}\n\ndata: {\"cho"), []byte("ices\":[]}\n\n")
	m := usage.NewMeter(usage.Options{SSE: true})
	if out, changed := m.Feed(first, false); changed || len(out) != len(first) {
		t.Errorf("without a strip: got %q, %t", out, changed)
	}
	m.Reset(usage.Options{SSE: true, StripFinal: true})
	if out, changed := m.Feed(first, false); !changed || string(out) != string(first[:33]) {
		t.Errorf("with a strip: got %q, %t", out, changed)
	}
	if out, changed := m.Feed(second, false); !changed || string(out) != string(first[33:])+string(second) {
		t.Errorf("the rest: got %q, %t", out, changed)
	}
	if out, changed := m.Feed(first, true); changed || len(out) != len(first) {
		t.Errorf("at the end: got %q, %t", out, changed)
	}
}

// Events that begin alike are not read twice; what differs must still tell.
func TestEventsThatBeginAlikeAreEachReadRight(t *testing.T) {
	data := `{"usage":{"prompt_tokens":1,"completion_tokens":2},"choices":[{"index":0,"delta":{"content":"x"}}]}`
	left := `{"choices":[{"index":0,"delta":{"content":"x"}}]}`
	wrong := `{"usage":{"completion_tokens":-1},"choices":[{"index":0,"delta":{"content":"x"}}]}`
	body := "data: " + data + "\n\ndata:" + data + "\n\nid: 1\ndata: " + data + "\n\ndata: " + data + "\n\n"
	want := strings.ReplaceAll(body, data, left)
	o := usage.Options{SSE: true, StripRunning: true}
	for _, pieces := range ways(body) {
		if _, out := feed(usage.NewMeter(o), pieces...); string(out) != want {
			t.Fatalf("got %q, want %q", out, want)
		}
	}
	for _, pieces := range ways("data: " + wrong + "\n\ndata: " + wrong + "\n\n") {
		if r, _ := feed(usage.NewMeter(o), pieces...); r.Anomalies[usage.Negative] != 2 {
			t.Fatalf("got %d negative counts, want 2", r.Anomalies[usage.Negative])
		}
	}
}
