package ledger_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

func TestTimesAreReadAsPeopleWriteThem(t *testing.T) {
	day := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"24h":                       noon.Add(-24 * time.Hour),
		"90m":                       noon.Add(-90 * time.Minute),
		"7d":                        noon.AddDate(0, 0, -7),
		"0d":                        noon,
		"2026-11-01":                day,
		"today":                     noon.Truncate(24 * time.Hour),
		"yesterday":                 noon.Truncate(24*time.Hour).AddDate(0, 0, -1),
		"2026-11-01T00:00:00Z":      day,
		"2026-11-01T02:00:00+02:00": day,
		"2026-11-01T00:00:00.5Z":    day.Add(500 * time.Millisecond),
	} {
		got, err := ledger.ParseTime(text, noon.In(time.FixedZone("x", 7200)))
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"tomorrow", "-24h", "-7d", "1.5d", "d", "7", "99999d", "999999999h", "2026-13-01", "2026-11-01 10:00", "99999999999d"} {
		if got, err := ledger.ParseTime(text, noon); !errors.Is(err, ledger.ErrQuery) {
			t.Errorf("%q: got %s, %v, want ErrQuery", text, got, err)
		}
	}
}

func TestGroupIsNamedByItsGrouping(t *testing.T) {
	g := ledger.Group{By: ledger.ByUser, Group: `a"b`}
	g.Add(ledger.Sums{Requests: 2, Prompt: 10, Completion: 5, Cached: 3, Errors: 1})
	got, err := json.Marshal([]ledger.Group{g})
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"user":"a\"b","requests":2,"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"cached_tokens":3,"errors":1}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

func TestQueriesThatMakeNoSenseAreRefused(t *testing.T) {
	for _, by := range ledger.Groupings() {
		if err := (ledger.Query{By: by, Since: noon, Until: noon}).Validate(); err != nil {
			t.Errorf("%s: %v", by, err)
		}
	}
	for _, q := range []ledger.Query{{}, {By: "colour"}, {By: ledger.ByKey, Since: noon, Until: noon.Add(-1)}} {
		if err := q.Validate(); !errors.Is(err, ledger.ErrQuery) {
			t.Errorf("%+v: got %v, want ErrQuery", q, err)
		}
	}
}

func TestCheckNamesTheBrokenRule(t *testing.T) {
	open := ledger.Opened(ledger.Intent{LeaseID: "a", StartedAt: noon})
	settled, _, _ := ledger.Merge(open, ledger.Settlement{
		LeaseID: "a", Status: 200, EndedAt: noon, Reason: ledger.Complete, Quality: ledger.Exact,
	})
	for _, c := range []struct {
		rule   ledger.Rule
		from   ledger.Record
		damage func(*ledger.Record)
	}{
		{ledger.RuleOpen, open, func(r *ledger.Record) { r.Quality = ledger.Exact }},
		{ledger.RuleOpen, open, func(r *ledger.Record) { r.EndedAt = noon }},
		{ledger.RuleOpen, open, func(r *ledger.Record) { r.Status = 200 }},
		{ledger.RuleSettled, settled, func(r *ledger.Record) { r.Reason = "because" }},
		{ledger.RuleSettled, settled, func(r *ledger.Record) { r.Quality = "" }},
		{ledger.RuleSettled, settled, func(r *ledger.Record) { r.EndedAt = time.Time{} }},
		{ledger.RuleSettled, settled, func(r *ledger.Record) { r.Counts.Prompt = usage.Unsaid }},
		{ledger.RuleCount, settled, func(r *ledger.Record) { r.Counts.Completion = -2 }},
		{ledger.RuleCount, settled, func(r *ledger.Record) { r.Counts.Reasoning = ledger.MaxTokens + 1 }},
		{ledger.RuleCount, open, func(r *ledger.Record) { r.Reserved = -1 }},
		{ledger.RuleTime, settled, func(r *ledger.Record) { r.EndedAt = noon.Add(-1) }},
		{ledger.RuleTime, settled, func(r *ledger.Record) { r.FirstByteAt = noon.Add(-1) }},
	} {
		r := c.from
		if found := ledger.Check(&r); len(found) > 0 {
			t.Fatalf("sound row: %+v", found)
		}
		c.damage(&r)
		found := ledger.Check(&r)
		if len(found) != 1 || found[0].Rule != c.rule || found[0].LeaseID != "a" {
			t.Errorf("%+v: got %+v, want %s", r, found, c.rule)
		}
	}
}
