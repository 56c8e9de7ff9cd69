package limits_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// overlap is how many requests were at the engine at once, all and of one key.
// The engine hears of a client's leaving a moment after the gateway: 50 ms at
// the end of one that was aborted are excused.
func (st *storm) overlap() (all, key int) {
	type edge struct {
		at    time.Time
		group string
		by    int
	}
	var edges []edge
	for _, tr := range st.s.Sim.Truths() {
		end := tr.EndedAt
		if tr.Aborted {
			end = end.Add(-50 * time.Millisecond)
		}
		if tr.Finished {
			end = end.Add(-2 * time.Millisecond) // counted out before its last byte, ended after it
		}
		if end.After(tr.StartedAt) {
			edges = append(edges, edge{tr.StartedAt, tr.Group, 1}, edge{end, tr.Group, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return a.by - b.by
	})
	now, byKey := 0, map[string]int{}
	for _, e := range edges {
		now += e.by
		byKey[e.group] += e.by
		all, key = max(all, now), max(key, byKey[e.group])
	}
	return all, key
}

// compare holds delivered ≤ ledger ≤ generated against every request.
func (st *storm) compare(t *testing.T) {
	t.Helper()
	var records map[string]ledger.Record
	stack.Eventually(t, 5*time.Second, "all rows to be ended", func() bool {
		records = st.s.Records()
		for _, r := range records {
			if r.Open() {
				return false
			}
		}
		return true
	})
	wrong, estimated, reasons := 0, 0, map[ledger.EndReason]int{}
	report := func(format string, args ...any) {
		if wrong++; wrong <= 10 {
			t.Errorf(format, args...)
		}
	}
	for id, n := range st.delivered {
		if _, ok := records[id]; !ok {
			report("a request that delivered %d tokens has no record", n)
		}
	}
	for id, r := range records {
		reasons[r.Reason]++
		if r.Quality == ledger.Estimated {
			estimated++
		}
		if wrong := st.mismatch(id, r); wrong != "" {
			report("%s %s: %s", r.Reason, r.Quality, wrong)
		}
	}
	for _, truth := range st.s.Sim.Truths() {
		if _, ok := records[truth.RequestID]; !ok {
			report("the engine answered a request that the ledger does not know")
		}
	}
	t.Logf("%d records: %v, %d estimated at 0 tokens, %d wrong", len(records), reasons, estimated, wrong)
}

// mismatch says what is wrong with one record; "" when nothing is.
func (st *storm) mismatch(id string, r ledger.Record) string {
	delivered, charged := st.delivered[id], r.Counts.Completion
	if r.Quality == ledger.Estimated { // left before anything was said
		if charged > 0 || delivered > 0 {
			return fmt.Sprintf("estimated with %d tokens, delivered %d", charged, delivered)
		}
		return ""
	}
	truth, ok := st.s.Sim.Truth(id)
	if generated := int64(truth.Completion()); charged < delivered || charged > generated || (!ok && charged > 0) {
		return fmt.Sprintf("delivered %d ≤ ledger %d ≤ generated %d does not hold", delivered, charged, generated)
	}
	return ""
}

var shedDetails = regexp.MustCompile(`"details":"([a-z_]+).*"status":503`)

// shedBy counts the access records of requests that got a 503.
func (st *storm) shedBy() map[string]int {
	by := map[string]int{}
	for _, m := range shedDetails.FindAllStringSubmatch(st.s.Tollgate.Output(), -1) {
		by[m[1]]++
	}
	return by
}

// explain: a machine that is too slow for so many at once answers some with a
// 503; no other reason will do.
func (st *storm) explain(t *testing.T) {
	t.Helper()
	if shed := st.shed.Load(); shed > 0 {
		by := st.shedBy()
		t.Logf("503 instead of an answer: %d, by Envoy's details: %v", shed, by)
		for details := range by {
			if details != "ext_authz_error" && details != "ext_proc_error_per" { // 1 s and 5 s to decide
				t.Errorf("503 that no slow machine explains: %s", details)
			}
		}
	}
}
