package replicas_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// TestTheReplicaThatSettlesSendsTheSpan: the check of a request, its answer and its log
// entry are at any of three replicas, and it has one span with what its row says.
func TestTheReplicaThatSettlesSendsTheSpan(t *testing.T) {
	beside(t)
	const n = 40
	c := stack.StartCollector(t, t.TempDir())
	s := startSite(t, 3, 1, calm, fmt.Sprintf("concurrent: 64}\notel: {endpoint: %q", c.GRPC), keys("ann", ""))
	ids := map[string]bool{}
	for range n {
		f := s.stream(stack.Chat(true, 20, ""))
		if f.code != http.StatusOK {
			t.Fatalf("status %d", f.code)
		}
		ids[f.id] = true
	}
	rows := map[string]ledger.Record{}
	for _, r := range s.replicas {
		maps.Copy(rows, r.Records())
	}
	for id := range ids {
		c.Find("the span of "+id, func(span *stack.Span) bool { return span.Attributes["tollgate.request.id"] == id })
	}
	seen := map[string]int{}
	for _, span := range c.Spans() {
		id, _ := span.Attributes["tollgate.request.id"].(string)
		if !ids[id] {
			continue
		}
		seen[id]++
		rec := rows[id]
		if rec.Trace == "" || !strings.HasPrefix(rec.Trace, span.Trace+"-"+span.ID) || span.Attributes["gen_ai.usage.output_tokens"] != rec.Counts.Completion || rec.Counts.Completion != 20 {
			t.Errorf("row %+v, span %+v", rec, span)
		}
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s has %d spans", id, times)
		}
	}
	if len(seen) != n {
		t.Errorf("%d of %d requests have a span", len(seen), n)
	}
}
