package ledger_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollgate/internal/ledger"
)

// Every instant lies in the whole days or in one edge, and in one of them only,
// exactly when it lies in the time that was cut.
func TestWholeDaysAndEdgesAreTheTime(t *testing.T) { //nolint:gocyclo // one story, told step by step
	base := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) time.Time {
			half := time.Duration(rapid.IntRange(0, 12).Draw(t, name+" half days")) * 12 * time.Hour
			return base.Add(half + time.Duration(rapid.IntRange(-2, 2).Draw(t, name+" µs"))*time.Microsecond)
		}
		var since, until time.Time
		if rapid.Bool().Draw(t, "since?") {
			since = draw("since")
		}
		if rapid.Bool().Draw(t, "until?") {
			until = draw("until")
		}
		first, last, edges := ledger.WholeDays(since, until)
		at := draw("at")
		found := 0
		if (first.IsZero() || !at.Before(first)) && (last.IsZero() || at.Before(last)) {
			found++
		}
		for _, e := range edges {
			if !at.Before(e.From) && at.Before(e.To) {
				found++
			}
		}
		want := 0
		if !at.Before(since) && (until.IsZero() || at.Before(until)) {
			want = 1
		}
		if found != want {
			t.Fatalf("%s in [%s, %s): found %d times, want %d: days [%s, %s), edges %v", at, since, until, found, want, first, last, edges)
		}
		for _, d := range []time.Time{first, last} {
			if !d.IsZero() && d.Truncate(24*time.Hour) != d {
				t.Fatalf("%s is no start of a day", d)
			}
		}
	})
}
