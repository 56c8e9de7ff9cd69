package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrQuery means that a report was asked for in a way that makes no sense (an unknown
// grouping, a time that cannot be read, an end before its start).
var ErrQuery = errors.New("invalid usage query")

// By names what a usage report is grouped by.
type By string

// The groupings.
const (
	ByKey   By = "key"   // id of the key
	ByUser  By = "user"  // user of the key when the request started
	ByModel By = "model" // model that answered
	ByDay   By = "day"   // UTC day of the start, as 2026-11-24

	ByRequestedModel By = "requested_model" // model that the client named
	ByEndUser        By = "end_user"        // person behind a shared key
	ByHour           By = "hour"            // UTC hour of the start, as 2026-11-24T15
)

// Groupings lists every grouping once.
func Groupings() []By {
	return []By{ByKey, ByUser, ByModel, ByDay, ByHour, ByRequestedModel, ByEndUser}
}

// RolledUp reports whether sums of whole days are kept for a grouping. The
// others are summed from the rows, so they end where retention has deleted.
func (b By) RolledUp() bool {
	return b != ByHour
}

// ParseBy reads what people write: one grouping, or two with a comma between them
// ("day,model"). What it cannot read is an [ErrQuery] that lists them.
func ParseBy(s string) (by, then By, err error) {
	first, second, two := strings.Cut(s, ",")
	by, then = By(strings.TrimSpace(first)), By(strings.TrimSpace(second))
	if two && then == "" {
		return by, then, fmt.Errorf("%w: a grouping is missing behind the comma of %q", ErrQuery, s)
	}
	return by, then, Query{By: by, Then: then}.Validate()
}

// Query asks for the usage of requests that started in [Since, Until).
type Query struct {
	By    By        // required
	Then  By        // within By; "": nothing
	Since time.Time // zero: from the first request
	Until time.Time // zero: no end
	// Only requests of this key, user or model count; "" is all of them.
	KeyID, User, Model string
}

// Selects reports whether a row counts, whatever its time.
func (q Query) Selects(r *Record) bool {
	return (q.KeyID == "" || q.KeyID == r.KeyID) && (q.User == "" || q.User == r.User) && (q.Model == "" || q.Model == r.Model)
}

// Validate reports a query that makes no sense, as [ErrQuery].
func (q Query) Validate() error {
	for _, by := range []By{q.By, q.Then} {
		if !slices.Contains(Groupings(), by) && (by != q.Then || by != "") {
			return fmt.Errorf("%w: group by %q, want one or two of key, user, model, day, hour, requested_model and end_user", ErrQuery, by)
		}
	}
	if q.By == q.Then {
		return fmt.Errorf("%w: group by %q twice", ErrQuery, q.By)
	}
	if !q.Until.IsZero() && q.Until.Before(q.Since) {
		return fmt.Errorf("%w: until %s is before since %s", ErrQuery, q.Until.Format(time.RFC3339), q.Since.Format(time.RFC3339))
	}
	return nil
}

// Group is the usage of one key, user, model, day or what else By names. Open requests count with
// their last checkpoint.
type Group struct {
	By               By
	Group            string // what By names; "" where the row said nothing
	Then             By     // "" where the report has one grouping
	Part             string // what Then names
	Requests         int64
	PromptTokens     int64
	CompletionTokens int64
	TotalTokens      int64 // prompt and completion
	CachedTokens     int64 // of the prompt, as far as engines said
	Errors           int64 // requests that have [EndReason.Failed]
}

// MarshalJSON writes the group's name under the name of its grouping:
// {"key":"k1","requests":1,"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"cached_tokens":1,"errors":0}.
// With two groupings the second name follows the first.
func (g Group) MarshalJSON() ([]byte, error) {
	name, err := json.Marshal(g.Group)
	if err != nil {
		return nil, fmt.Errorf("encode group: %w", err)
	}
	if g.Then != "" {
		part, err := json.Marshal(g.Part)
		if err != nil {
			return nil, fmt.Errorf("encode group: %w", err)
		}
		name = fmt.Appendf(name, `,%q:%s`, string(g.Then), part)
	}
	return fmt.Appendf(nil, `{%q:%s,"requests":%d,"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"cached_tokens":%d,"errors":%d}`,
		string(g.By), name, g.Requests, g.PromptTokens, g.CompletionTokens, g.TotalTokens, g.CachedTokens, g.Errors), nil
}

// Sums are what a report counts of some rows.
type Sums struct {
	Requests, Prompt, Completion, Cached, Errors int64
}

// SumsOf counts one row.
func SumsOf(r *Record) Sums {
	s := Sums{Requests: 1, Prompt: max(r.Counts.Prompt, 0), Completion: max(r.Counts.Completion, 0), Cached: max(r.Counts.Cached, 0)}
	if r.Reason.Failed() {
		s.Errors = 1
	}
	return s
}

// String returns the sums as a sentence has them.
func (s Sums) String() string {
	return fmt.Sprintf("%d requests, %d prompt, %d completion, %d cached tokens, %d errors", s.Requests, s.Prompt, s.Completion, s.Cached, s.Errors)
}

// Plus returns the sums of both.
func (s Sums) Plus(o Sums) Sums {
	return Sums{s.Requests + o.Requests, s.Prompt + o.Prompt, s.Completion + o.Completion, s.Cached + o.Cached, s.Errors + o.Errors}
}

// Minus returns what s has more than o.
func (s Sums) Minus(o Sums) Sums {
	return s.Plus(Sums{-o.Requests, -o.Prompt, -o.Completion, -o.Cached, -o.Errors})
}

// Add counts one more row, or one more partial sum of the same group.
func (g *Group) Add(s Sums) {
	g.Requests += s.Requests
	g.PromptTokens += s.Prompt
	g.CompletionTokens += s.Completion
	g.TotalTokens += s.Prompt + s.Completion
	g.CachedTokens += s.Cached
	g.Errors += s.Errors
}

// Total sums groups; it is grouped by nothing.
func Total(groups []Group) Group {
	var t Group
	for _, g := range groups {
		t.Add(Sums{g.Requests, g.PromptTokens, g.CompletionTokens, g.CachedTokens, g.Errors})
	}
	return t
}

// GroupOf names the group that a row belongs to.
func GroupOf(by By, r *Record) string {
	switch by {
	case ByKey:
		return r.KeyID
	case ByUser:
		return r.User
	case ByModel:
		return r.Model
	case ByDay:
		return Day(r.StartedAt)
	case ByHour:
		return r.StartedAt.UTC().Format("2006-01-02T15")
	case ByRequestedModel:
		return r.RequestedModel
	case ByEndUser:
		return r.EndUser
	}
	return ""
}

// Day names the UTC day of t, as 2026-11-24.
func Day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Filter selects rows. The zero filter selects all.
type Filter struct {
	Since time.Time // started at or after; zero: no start
	Until time.Time // started before; zero: no end
	KeyID string    // "": every key
	Open  bool      // only requests that are not settled

	RequestedModel string // "": every model
	EndUser        string // "": everybody
}

// Match reports whether a row is selected.
func (f Filter) Match(r *Record) bool {
	same := func(want, got string) bool { return want == "" || want == got }
	return within(r.StartedAt, f.Since, f.Until) && (!f.Open || r.Open()) && same(f.KeyID, r.KeyID) &&
		same(f.RequestedModel, r.RequestedModel) && same(f.EndUser, r.EndUser)
}

func within(t, since, until time.Time) bool {
	return !t.Before(since) && (until.IsZero() || t.Before(until))
}

// Span is the time from From to before To, in whole microseconds.
type Span struct{ From, To time.Time }

// WholeDays cuts [since, until) into whole UTC days, from first to before last,
// and what is left at its edges. A zero first or last means that there is no
// such bound; where no whole day fits they are equal.
func WholeDays(since, until time.Time) (first, last time.Time, edges []Span) {
	since, until = CeilMicro(since), CeilMicro(until)
	first, last = dayFrom(since), dayUpTo(until)
	edge := func(from, to time.Time) {
		if from.Before(to) {
			edges = append(edges, Span{from, to})
		}
	}
	switch {
	case !until.IsZero() && !since.IsZero() && last.Before(first): // inside one day
		edge(since, until)
		return first, first, edges
	case !since.IsZero():
		edge(since, first)
	}
	if !until.IsZero() {
		edge(last, until)
	}
	return first, last, edges
}

// CeilMicro is the first whole microsecond at or after t. The zero time stays.
func CeilMicro(t time.Time) time.Time {
	if m := Micro(t); m.Before(t) {
		return m.Add(time.Microsecond)
	}
	return Micro(t)
}

// dayUpTo is the start of t's UTC day, dayFrom the first start of a day at or
// after t. The zero time stays.
func dayUpTo(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	y, m, d := t.UTC().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func dayFrom(t time.Time) time.Time {
	day := dayUpTo(t)
	if day.Before(t) {
		return day.AddDate(0, 0, 1)
	}
	return day
}

// maxAge keeps ages within what time.Duration holds (292 years).
const maxAge = 100 * 366 * 24 * time.Hour

// ParseTime reads a point in time as people write it: an age before now (24h,
// 90m, 7d), the first instant of a UTC day (2026-11-01, today, yesterday) or RFC 3339.
// An empty text is the zero time. What it cannot read is an [ErrQuery] that says what
// it takes.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	switch s {
	case "today":
		return dayUpTo(now), nil
	case "yesterday":
		return dayUpTo(now).AddDate(0, 0, -1), nil
	}
	age, ok := parseAge(s)
	if !ok || age < 0 || age > maxAge {
		return time.Time{}, fmt.Errorf("%w: time %q, want an age (24h, 7d), a day (2026-11-01, today, yesterday) or RFC 3339 (2026-11-01T15:04:05Z)", ErrQuery, s)
	}
	return now.Add(-age).UTC(), nil
}

func parseAge(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, false
		}
		return time.Duration(n) * 24 * time.Hour, true
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}
