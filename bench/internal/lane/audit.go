package lane

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tollgate/bench/internal/load"
	"tollgate/bench/internal/rig"
	"tollgate/bench/internal/upstream"
	"tollgate/internal/ledger"
)

// audit compares a run with the truth. A run that disagrees is void; an error
// means that the comparison could not be made.
func (b *Bench) audit(ctx context.Context, run *Run, t Target, res *load.Result, truth *upstream.Truth, since time.Time) error {
	var wrong []string
	if res.Failed() > 0 {
		wrong = append(wrong, fmt.Sprintf("%d of %d requests failed: %v", res.Failed(), res.Requests, res.Errors))
	}
	if t.Stack.Kind != rig.Foreign && truth.Requests != res.Requests {
		wrong = append(wrong, fmt.Sprintf("%d requests were sent and %d came to the upstream", res.Requests, truth.Requests))
	}
	if res.Aborted+res.Cut+res.Failed() == 0 && res.Chunks > 0 && truth.Tokens != res.Chunks {
		wrong = append(wrong, fmt.Sprintf("the upstream wrote %d chunks and %d arrived", truth.Tokens, res.Chunks))
	}
	if t.Stack.Kind.Ours() {
		rows, err := b.settled(ctx, t.Stack, since, len(truth.Records))
		if err != nil {
			return err
		}
		run.Rows = len(rows)
		if w := Compare(rows, truth, res.Delivered); w != "" {
			wrong = append(wrong, w)
		}
	}
	run.Void = strings.Join(wrong, "; ")
	return nil
}

// settled reads the ledger until all requests are in it and closed, or the
// patience for that is over: then the comparison says what is missing.
func (b *Bench) settled(ctx context.Context, s *rig.Stack, since time.Time, want int) (map[string]ledger.Record, error) {
	const patience = 5 * time.Second
	end := time.Now().Add(patience)
	for {
		rows, err := s.Records(ctx, since)
		if err != nil {
			return nil, err
		}
		open := 0
		for _, r := range rows {
			if r.Open() {
				open++
			}
		}
		if open == 0 && len(rows) >= want || time.Now().After(end) || ctx.Err() != nil {
			return rows, ctx.Err()
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// Compare says where a ledger disagrees with the upstream; empty when it does
// not. What ended whole must be there to the token; of what was cut, no less
// than the client got and no more than the upstream wrote. Only what was cut
// before anything came through may be estimated.
func Compare(rows map[string]ledger.Record, truth *upstream.Truth, delivered map[string]load.Delivered) string {
	var wrong []string
	say := func(format string, args ...any) {
		if len(wrong) < 3 {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	if len(rows) != len(truth.Records) {
		say("the ledger has %d requests and the upstream %d", len(rows), len(truth.Records))
	}
	for id, was := range truth.Records {
		row, ok := rows[id]
		got := delivered[id]
		switch {
		case !ok:
			say("request %s is not in the ledger", id)
		case row.Open():
			say("request %s is still open", id)
		case row.Quality == ledger.Estimated && got.Chunks == 0 && !got.Complete:
			// It was cut before its first chunk came through: nobody has said how
			// many tokens it took.
		case row.Quality != ledger.Exact:
			say("request %s is only %s", id, row.Quality)
		case row.Counts.Prompt != upstream.PromptTokens:
			say("request %s has %d prompt tokens, want %d", id, row.Counts.Prompt, upstream.PromptTokens)
		case got.Complete && row.Counts.Completion != int64(was.Written):
			say("request %s has %d tokens, the upstream wrote %d", id, row.Counts.Completion, was.Written)
		case row.Counts.Completion < int64(got.Chunks) || row.Counts.Completion > int64(was.Written):
			say("request %s has %d tokens, %d were delivered and %d written", id, row.Counts.Completion, got.Chunks, was.Written)
		}
	}
	return strings.Join(wrong, ", ")
}
