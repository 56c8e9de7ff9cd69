package ledger

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"tollgate/internal/usage"
)

// Book is the ledger in memory: the reference that other stores are compared
// with, and what tests use. It forgets everything with the process.
type Book struct {
	mu     sync.Mutex
	rows   map[string]Record // by lease id; guarded by mu
	change int64             // the last change number; guarded by mu
	closed bool              // guarded by mu
}

var _ Store = (*Book)(nil)

// NewBook returns an empty book.
func NewBook() *Book { return &Book{rows: map[string]Record{}} }

// open locks the book, or says why it cannot be used. The caller unlocks.
func (b *Book) open(ctx context.Context, what string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return fmt.Errorf("%s: %w", what, ErrUnavailable)
	}
	return nil
}

// Begin implements [Store].
func (b *Book) Begin(ctx context.Context, in Intent) error {
	if err := in.Validate(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := b.open(ctx, "begin"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	if _, ok := b.rows[in.LeaseID]; ok {
		return fmt.Errorf("begin: %w", ErrDuplicate)
	}
	b.rows[in.LeaseID] = Opened(in)
	return nil
}

// Checkpoint implements [Store].
func (b *Book) Checkpoint(ctx context.Context, batch []Checkpoint) error {
	if err := b.open(ctx, "checkpoint"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	for _, c := range batch {
		if r, ok := b.rows[c.LeaseID]; ok && r.Open() {
			r.Counts, _ = Grow(r.Counts, c.Counts)
			b.rows[c.LeaseID] = r
		}
	}
	return nil
}

// Settle implements [Store].
func (b *Book) Settle(ctx context.Context, s Settlement) (Record, usage.Counts, error) {
	if err := s.Validate(); err != nil {
		return Record{}, usage.Counts{}, fmt.Errorf("settle: %w", err)
	}
	if err := b.open(ctx, "settle"); err != nil {
		return Record{}, usage.Counts{}, err
	}
	defer b.mu.Unlock()
	old, ok := b.rows[s.LeaseID]
	if !ok {
		return Record{}, usage.Counts{}, fmt.Errorf("settle: %w", ErrUnknown)
	}
	next, delta := b.merge(old, s)
	return next, delta, nil
}

// merge writes a settlement. The caller holds mu.
func (b *Book) merge(old Record, s Settlement) (Record, usage.Counts) {
	next, delta, changed := Merge(old, s)
	if changed {
		b.change++
		next.Change = b.change
		b.rows[s.LeaseID] = next
	}
	return next, delta
}

// Get implements [Store].
func (b *Book) Get(ctx context.Context, leaseID string) (Record, error) {
	if err := b.open(ctx, "get"); err != nil {
		return Record{}, err
	}
	defer b.mu.Unlock()
	r, ok := b.rows[leaseID]
	if !ok {
		return Record{}, fmt.Errorf("get: %w", ErrUnknown)
	}
	return r, nil
}

// Open implements [Store].
func (b *Book) Open(ctx context.Context) ([]Record, error) {
	if err := b.open(ctx, "list open requests"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var open []Record
	for _, r := range b.rows {
		if r.Open() {
			open = append(open, r)
		}
	}
	slices.SortFunc(open, func(x, y Record) int {
		return cmp.Or(x.StartedAt.Compare(y.StartedAt), cmp.Compare(x.LeaseID, y.LeaseID))
	})
	return open, nil
}

// Recover implements [Store].
func (b *Book) Recover(ctx context.Context, leases []string, reason EndReason, at time.Time) (int, error) {
	if !reason.known() {
		return 0, fmt.Errorf("recover: %w: end reason %q", ErrInvalid, reason)
	}
	if err := b.open(ctx, "recover"); err != nil {
		return 0, err
	}
	defer b.mu.Unlock()
	n := 0
	for _, id := range leases {
		if r, ok := b.rows[id]; ok && r.Open() {
			b.merge(r, Recovery(&r, reason, at))
			n++
		}
	}
	return n, nil
}

// Used implements [Store].
func (b *Book) Used(ctx context.Context, keyID string, since, until time.Time) (int64, error) {
	if err := b.open(ctx, "sum usage"); err != nil {
		return 0, err
	}
	defer b.mu.Unlock()
	var sum int64
	for _, r := range b.rows {
		if r.KeyID == keyID && within(r.StartedAt, since, until) {
			sum += max(r.Counts.Prompt, 0) + max(r.Counts.Completion, 0)
		}
	}
	return sum, nil
}

// Minute implements [Store]; the seconds come ordered by time and key.
func (b *Book) Minute(ctx context.Context, since time.Time) ([]Second, error) {
	if err := b.open(ctx, "read seconds"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	type slot struct {
		key string
		at  int64
	}
	seconds := map[slot]Second{}
	add := func(key string, t time.Time, tokens, requests int64) {
		k := slot{key, t.Unix()}
		s := seconds[k]
		s.KeyID, s.At = key, time.Unix(t.Unix(), 0).UTC()
		s.Tokens += tokens
		s.Requests += requests
		seconds[k] = s
	}
	for _, r := range b.rows {
		used := max(r.Counts.Prompt, 0) + max(r.Counts.Completion, 0)
		switch {
		case r.StartedAt.Before(since):
		case r.Open():
			add(r.KeyID, r.StartedAt, used, 1)
		default:
			add(r.KeyID, r.StartedAt, 0, 1)
		}
		if !r.Open() && !r.EndedAt.Before(since) {
			add(r.KeyID, r.EndedAt, used, 0)
		}
	}
	return slices.SortedFunc(maps.Values(seconds), func(x, y Second) int {
		return cmp.Or(x.At.Compare(y.At), cmp.Compare(x.KeyID, y.KeyID))
	}), nil
}

// Usage reports usage by q, ordered by the names of the groups.
func (b *Book) Usage(ctx context.Context, q Query) ([]Group, error) {
	if err := q.Validate(); err != nil {
		return nil, fmt.Errorf("report usage: %w", err)
	}
	if err := b.open(ctx, "report usage"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	type names struct{ group, part string }
	groups := map[names]Group{}
	for _, r := range b.rows {
		if !within(r.StartedAt, q.Since, q.Until) || !q.Selects(&r) {
			continue
		}
		n := names{GroupOf(q.By, &r), GroupOf(q.Then, &r)}
		g := groups[n]
		g.By, g.Group, g.Then, g.Part = q.By, n.group, q.Then, n.part
		g.Add(SumsOf(&r))
		groups[n] = g
	}
	return slices.SortedFunc(maps.Values(groups), func(x, y Group) int {
		return cmp.Or(cmp.Compare(x.Group, y.Group), cmp.Compare(x.Part, y.Part))
	}), nil
}

// Verify returns every invariant that a row breaks.
func (b *Book) Verify(ctx context.Context) ([]Violation, error) {
	if err := b.open(ctx, "verify"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var found []Violation
	for _, r := range b.rows {
		found = append(found, Check(&r)...)
	}
	return found, nil
}

// Close implements [Store]. Calls after it return [ErrUnavailable].
func (b *Book) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}
