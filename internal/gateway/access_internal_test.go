package gateway

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/trace"
	"tollgate/internal/usage"
)

func finished() admission.Access {
	return admission.Access{
		Witness: admission.Witness{
			LeaseID: "0123", RequestID: "r1", KeyID: "team-a", Method: "POST", Endpoint: "/v1/chat/completions", Status: 200,
			ClientAddr: "192.0.2.1", Duration: 1500 * time.Millisecond, FirstByte: 20 * time.Millisecond,
			BytesIn: 100, BytesOut: 2000, Details: "via_upstream",
		},
		User: "ann", Model: "tiny <b> & \"q\"\n", RequestedModel: "chat", Reason: ledger.Complete, Quality: ledger.Exact,
		Counts: usage.Counts{Prompt: 3, Completion: 2, Cached: usage.Unsaid, Reasoning: usage.Unsaid},
	}
}

// line records one request and returns its line.
func line(t *testing.T, a admission.Access) map[string]any {
	t.Helper()
	var out bytes.Buffer
	newRecorder(prometheus.NewRegistry(), &out).record(a)
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Fatalf("%d lines: %q", n, &out)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestARecordLooksLikeALineOfTheLog(t *testing.T) {
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Name: "tollgate", JSONFormat: true, Output: &out})
	log.Named("access").Info("request",
		"request_id", "r1", "lease_id", "0123", "key_id", "team-a", "user", "ann", "method", "POST",
		"endpoint", "/v1/chat/completions", "model", "tiny <b> & \"q\"\n", "requested_model", "chat", "status", 200, "duration_ms", 1500,
		"first_byte_ms", 20, "bytes_in", 100, "bytes_out", 2000, "client_addr", "192.0.2.1", "details", "via_upstream",
		"end_reason", "complete", "quality", "exact", "prompt_tokens", 3, "completion_tokens", 2)
	var want map[string]any
	if err := json.Unmarshal(out.Bytes(), &want); err != nil {
		t.Fatal(err)
	}
	got := line(t, finished())
	for _, m := range []map[string]any{got, want} {
		at, _ := m["@timestamp"].(string)
		when, err := time.Parse(hclog.TimeFormatJSON, at)
		if err != nil || time.Since(when) > time.Minute {
			t.Errorf("timestamp %q: %v", at, err)
		}
		delete(m, "@timestamp")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-log's +ours):\n%s", diff)
	}
}

func TestARecordSaysOnlyWhatIsKnown(t *testing.T) {
	refused := admission.Access{
		Witness: admission.Witness{Method: "POST", Status: 429, Denied: "requests"}, Counts: usage.None(),
	}
	got := line(t, refused)
	if got["error_type"] != "requests" {
		t.Errorf("error_type %v, want requests", got["error_type"])
	}
	for _, name := range []string{"end_reason", "quality", "prompt_tokens", "completion_tokens", "cached_tokens"} {
		if v, ok := got[name]; ok {
			t.Errorf("%s is %v where nothing was recorded", name, v)
		}
	}
	cached := finished()
	cached.Counts.Cached = 1
	if got := line(t, cached); got["cached_tokens"] != 1.0 || got["error_type"] != nil {
		t.Errorf("got %v", got)
	}
}

func TestWithoutAPlaceThereAreNoLines(t *testing.T) {
	reg := prometheus.NewRegistry()
	newRecorder(reg, nil).record(finished())
	families, err := reg.Gather()
	if err != nil || len(families) != 2 { // no error, so no http_errors_total
		t.Errorf("metrics: %v, %v", families, err)
	}
}

func BenchmarkRecord(b *testing.B) {
	var out bytes.Buffer
	r := newRecorder(prometheus.NewRegistry(), &out)
	a := finished()
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		r.record(a)
	}
}

func TestTheLineOfATracedRequestNamesItsTrace(t *testing.T) {
	a := finished()
	a.Trace, _ = trace.NewSampler(1).Begin(nil)
	if got := line(t, a)["trace_id"]; got != a.Trace.TraceID() {
		t.Errorf("trace_id %v, want %s", got, a.Trace.TraceID())
	}
	if got, there := line(t, finished())["trace_id"]; there {
		t.Errorf("a request without a trace has the trace_id %v", got)
	}
}
