package traces_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

func TestASpanStandsBetweenClientAndEngine(t *testing.T) { //nolint:gocyclo // one story, told step by step
	hosts(t, func(t *testing.T) {
		t.Helper()
		r := start(t, "", "models: [{name: chat, targets: [{model: tiny}]}]")
		for _, stream := range []bool{true, false} {
			body := strings.Replace(stack.Chat(stream, 12, ""), `"tiny"`, `"chat"`, 1)
			a := r.Post(stack.ChatPath, body, "traceparent", traceparent, "tracestate", "vendor=1")
			if a.StatusCode != http.StatusOK {
				t.Fatalf("status %d: %s", a.StatusCode, a.Bytes)
			}
			rec := r.Settled(a.RequestID())
			span := r.span(a.RequestID())
			if span.Trace != clientTrace || span.Parent != clientSpan || span.ID == clientSpan || span.Failed != "" {
				t.Errorf("stream %v: got %+v", stream, span)
			}
			if span.Name != "chat chat" || span.Attributes["gen_ai.operation.name"] != "chat" || span.Attributes["gen_ai.system"] != "vllm" || span.Resource["service.name"] != "tollgate" {
				t.Errorf("got %+v", span)
			}
			if rec.Counts.Completion != 12 || rec.Counts.Cached < 0 || span.Attributes["tollgate.cached_tokens"] != rec.Counts.Cached {
				t.Errorf("row %+v, cached of the span %v", rec.Counts, span.Attributes["tollgate.cached_tokens"])
			}
			r.agrees(span, rec)
			r.passedOn(span, a.RequestID())
			if got := r.engine.told(a.RequestID(), "tracestate"); len(got) != 1 || got[0] != "vendor=1" {
				t.Errorf("tracestate: %q", got)
			}
			r.once(a.RequestID())
		}
	})
}

// A header that is no traceparent begins a trace, and the engine hears one header and
// never the one that the client made up.
func TestGarbageBeginsATrace(t *testing.T) {
	r := start(t, ", protocol: http", "")
	answers := map[string]*stack.Answer{}
	for name, lines := range map[string]string{
		"none":    "",
		"garbage": "traceparent: 00-garbage-" + clientSpan + "-01\r\ntracestate: vendor=1\r\n",
		"two":     "traceparent: " + traceparent + "\r\ntraceparent: " + traceparent + "\r\n",
		"huge":    "traceparent: " + traceparent + strings.Repeat("-x", 4000) + "\r\n",
	} {
		body := stack.Chat(false, 3, "")
		a := r.Raw("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + stack.Key + "\r\nContent-Type: application/json\r\n" + lines +
			"Content-Length: " + strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n" + body)
		if a.Response == nil || a.StatusCode != http.StatusOK {
			t.Fatalf("%s: got %+v", name, a)
		}
		answers[name] = a
	}
	for name, a := range answers {
		span := r.span(a.RequestID())
		if span.Trace == clientTrace || span.Parent != "" {
			t.Errorf("%s: got %+v", name, span)
		}
		r.passedOn(span, a.RequestID())
		if got := r.engine.told(a.RequestID(), "tracestate"); len(got) != 0 {
			t.Errorf("%s: tracestate %q", name, got)
		}
		r.agrees(span, r.Settled(a.RequestID()))
	}
}

func TestWhatIsNotSampledIsNotSent(t *testing.T) {
	r := start(t, ", sample: 0", "")
	unsampled := r.Post(stack.ChatPath, stack.Chat(false, 3, ""), "traceparent", traceparent[:len(traceparent)-1]+"0")
	root := r.Post(stack.ChatPath, stack.Chat(false, 3, ""))
	for _, a := range []*stack.Answer{unsampled, root} {
		if told := r.engine.told(a.RequestID(), "traceparent"); len(told) != 1 || !strings.HasSuffix(told[0], "-00") && !strings.HasSuffix(told[0], "-02") {
			t.Errorf("the engine was told %q", told)
		}
		if rec := r.Settled(a.RequestID()); rec.Trace != "" {
			t.Errorf("the row has the trace %q", rec.Trace)
		}
	}
	sampled := r.Post(stack.ChatPath, stack.Chat(false, 3, ""), "traceparent", traceparent)
	r.span(sampled.RequestID())
	if n := len(r.collector.Spans()); n != 1 {
		t.Errorf("%d spans came, want the one that its client wants", n)
	}
}

// A client that leaves in the middle has a span with the tokens of the ledger.
func TestACutStreamHasTheTokensOfTheLedger(t *testing.T) {
	hosts(t, func(t *testing.T) {
		t.Helper()
		r := start(t, "", "")
		a, leave := r.Open(r.HTTP1, stack.Key, stack.Chat(true, 500, `"delay_ms":10`))
		if _, err := io.ReadFull(a.Body, make([]byte, 2000)); err != nil {
			t.Fatal(err)
		}
		leave()
		id := a.RequestID()
		rec := r.RecordWhen(id, "named", func(rec ledger.Record) bool { return rec.Reason == ledger.ClientAbort })
		span := r.span(id)
		if span.Failed != "client_abort" || span.Attributes["error.type"] != "client_abort" || rec.Counts.Completion == 0 {
			t.Errorf("span %+v of row %+v", span, rec)
		}
		r.agrees(span, rec)
		r.passedOn(span, id)

		cut := r.Post(stack.ChatPath, stack.Chat(true, 50, `"cut_after":5`), "traceparent", traceparent)
		rec = r.RecordWhen(cut.RequestID(), "named", func(rec ledger.Record) bool { return rec.Reason == ledger.UpstreamAbort })
		span = r.span(cut.RequestID())
		if span.Failed != "upstream_abort" || span.Parent != clientSpan {
			t.Errorf("span %+v of row %+v", span, rec)
		}
		r.agrees(span, rec)
		r.once(id)
	})
}

func TestARefusedRequestHasASpan(t *testing.T) {
	r := start(t, "", "rate_limit: {requests_per_minute: 3}")
	chat := stack.Chat(false, 3, "")
	cases := []struct {
		name, body string
		key        string // "": none
		status     int
		failed     string
	}{
		{"no key", chat, "", 401, "missing_key"},
		{"bad key", chat, "Bearer sk-nobody-0123456789", 401, "invalid_key"},
		{"model", strings.Replace(chat, "tiny", "other-model", 1), "Bearer " + stack.Key, 404, "model"},
		{"no JSON", "{", "Bearer " + stack.Key, 400, "bad_request"},
		{"by vLLM", stack.Chat(false, 3, `"error_status":500`), "Bearer " + stack.Key, 500, "upstream_5xx"},
		{"too much", chat, "Bearer " + stack.Key, 429, "requests"}, // after the three above
	}
	time.Sleep(1100 * time.Millisecond) // five refusals of a second have spans, and those of the start have been some
	answers := make([]*stack.Answer, len(cases))
	for i, c := range cases {
		answers[i] = r.Post(stack.ChatPath, c.body, "traceparent", traceparent, "Authorization", c.key)
		if answers[i].StatusCode != c.status {
			t.Fatalf("%s: status %d: %s", c.name, answers[i].StatusCode, answers[i].Bytes)
		}
	}
	for i, c := range cases {
		span := r.span(answers[i].RequestID())
		if span.Trace != clientTrace || span.Parent != clientSpan || span.Failed != c.failed || span.Attributes["error.type"] != c.failed ||
			span.Attributes["http.response.status_code"] != int64(c.status) || span.End.Before(span.Begin) {
			t.Errorf("%s: got %+v", c.name, span)
		}
		r.once(answers[i].RequestID())
	}
	page := r.Do(r.HTTP1, http.MethodGet, "/health", "", "traceparent", traceparent)
	r.span(r.Post(stack.ChatPath, chat, "Authorization", "Bearer "+stack.AdminKey).RequestID())
	for _, s := range r.collector.Spans() {
		if s.Attributes["tollgate.request.id"] == page.RequestID() {
			t.Errorf("a page has a span: %+v", s)
		}
	}
}

// The histograms of requests name a trace, to a Prometheus that asks for OpenMetrics.
func TestHistogramsHaveTracesAsExemplars(t *testing.T) {
	t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
	r := start(t, "", "")
	a := r.Post(stack.ChatPath, stack.Chat(true, 12, `"delay_ms":2`), "traceparent", traceparent)
	span := r.span(a.RequestID())
	if span.Attributes["gen_ai.provider.name"] != "vllm" || span.Attributes["gen_ai.system"] != nil {
		t.Errorf("the names of the span are not the latest: %v", span.Attributes)
	}
	page := func(accept string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.Scrape+"/metrics", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	open := page("application/openmetrics-text; version=1.0.0")
	for _, name := range []string{
		"http_request_duration_seconds", "tollgate_time_to_first_token_seconds", "tollgate_inter_token_seconds",
		"gen_ai_client_token_usage", "gen_ai_server_request_duration_seconds",
	} {
		found := false
		for line := range strings.Lines(open) {
			found = found || strings.HasPrefix(line, name+"_bucket") && strings.Contains(line, `# {trace_id="`+span.Trace+`"}`)
		}
		if !found {
			t.Errorf("%s has no exemplar", name)
		}
	}
	if plain := page("text/plain"); strings.Contains(plain, "trace_id") || !strings.Contains(plain, `tollgate_build_info{`) {
		t.Error("the plain page has exemplars, or not what was built")
	}
}
