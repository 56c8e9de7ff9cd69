package sqlitestore

import (
	"database/sql"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// columns are the columns of a record in the order of scanRecord.
const columns = `lease_id, request_id, key_id, user, model, endpoint, engine, stream, n, prompts,
	status, started_at, first_byte_at, ended_at, end_reason, quality,
	prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, reserved_tokens, client_addr`

type scanner interface{ Scan(dest ...any) error }

// scanRecord reads one row of columns; extra are further columns after them.
func scanRecord(s scanner, extra ...any) (ledger.Record, error) {
	var (
		r                 ledger.Record
		started           int64
		first, ended      sql.NullInt64
		reason, quality   sql.NullString
		prompt, completed sql.NullInt64
		cached, reasoning sql.NullInt64
	)
	dest := [24]any{
		&r.LeaseID, &r.RequestID, &r.KeyID, &r.User, &r.Model, &r.Endpoint, &r.Engine, &r.Stream, &r.N, &r.Prompts,
		&r.Status, &started, &first, &ended, &reason, &quality,
		&prompt, &completed, &cached, &reasoning, &r.Reserved, &r.ClientAddr,
	}
	if err := s.Scan(append(dest[:22], extra...)...); err != nil {
		return ledger.Record{}, err
	}
	r.StartedAt = time.UnixMicro(started).UTC()
	r.FirstByteAt, r.EndedAt = timeOf(first), timeOf(ended)
	r.Reason, r.Quality = ledger.EndReason(reason.String), ledger.Quality(quality.String)
	r.Counts = usage.Counts{
		Prompt: countOf(prompt), Completion: countOf(completed),
		Cached: countOf(cached), Reasoning: countOf(reasoning),
	}
	return r, nil
}

func timeOf(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func countOf(n sql.NullInt64) int64 {
	if !n.Valid {
		return usage.Unsaid
	}
	return n.Int64
}

func count(n int64) any {
	if n == usage.Unsaid {
		return nil
	}
	return n
}

// rollupKey names one rollup.
type rollupKey struct{ key, day, user, model string }

func rollupOf(r *ledger.Record) rollupKey {
	return rollupKey{key: r.KeyID, day: ledger.Day(r.StartedAt), user: r.User, model: r.Model}
}

// sums are what a rollup counts.
type sums struct{ requests, prompt, completion int64 }

func (s *sums) add(requests int64, c usage.Counts) {
	s.requests += requests
	s.prompt += max(c.Prompt, 0)
	s.completion += max(c.Completion, 0)
}
