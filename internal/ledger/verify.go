package ledger

import (
	"fmt"
	"time"

	"tollgate/internal/usage"
)

// Rule names an invariant of the ledger.
type Rule string

// The invariants that verify checks.
const (
	// RuleOpen: an open row has no quality, no end and no status.
	RuleOpen Rule = "open_has_no_end"
	// RuleSettled: a settled row has a known reason, a quality and an end, and
	// says its prompt and completion tokens.
	RuleSettled Rule = "settled_is_whole"
	// RuleCount: a count is unsaid or in [0, MaxTokens].
	RuleCount Rule = "count_in_range"
	// RuleTime: nothing happens before the start.
	RuleTime Rule = "not_before_start"
	// RuleRollup: every rollup equals the sum of its rows, those that retention
	// removed included.
	RuleRollup Rule = "rollup_equals_rows"
	// RuleShipped: the central ledger has what it has confirmed.
	RuleShipped Rule = "shipped_is_central"
	// RuleAudit: each entry of the audit follows from the one before.
	RuleAudit Rule = "audit_is_a_chain"
	// RuleStorage: the file itself is sound.
	RuleStorage Rule = "storage_is_sound"
)

// Rules lists every invariant once.
func Rules() []Rule {
	return []Rule{RuleOpen, RuleSettled, RuleCount, RuleTime, RuleRollup, RuleShipped, RuleAudit, RuleStorage}
}

// Violation is one invariant that does not hold.
type Violation struct {
	LeaseID string `json:"lease_id"` // "" where it is not about one row
	Rule    Rule   `json:"rule"`
	Detail  string `json:"detail"`
}

// Check returns the invariants that a row breaks by itself.
func Check(r *Record) []Violation {
	var found []Violation
	broken := func(rule Rule, format string, args ...any) {
		found = append(found, Violation{LeaseID: r.LeaseID, Rule: rule, Detail: fmt.Sprintf(format, args...)})
	}
	if r.Open() {
		if r.Quality != "" || !r.EndedAt.IsZero() || r.Status != 0 {
			broken(RuleOpen, "open with quality %q, status %d, ended %s", r.Quality, r.Status, stamp(r.EndedAt))
		}
	} else if !r.Reason.known() || r.Quality.Rank() == 0 || r.EndedAt.IsZero() ||
		r.Counts.Prompt == usage.Unsaid || r.Counts.Completion == usage.Unsaid {
		broken(RuleSettled, "reason %q, quality %q, ended %s, prompt %d, completion %d",
			r.Reason, r.Quality, stamp(r.EndedAt), r.Counts.Prompt, r.Counts.Completion)
	}
	if bounded(r.Counts) != r.Counts || r.Reserved < 0 {
		broken(RuleCount, "prompt %d, completion %d, cached %d, reasoning %d, reserved %d",
			r.Counts.Prompt, r.Counts.Completion, r.Counts.Cached, r.Counts.Reasoning, r.Reserved)
	}
	early := func(t time.Time) bool { return !t.IsZero() && t.Before(r.StartedAt) }
	if early(r.FirstByteAt) || early(r.EndedAt) {
		broken(RuleTime, "started %s, first byte %s, ended %s", stamp(r.StartedAt), stamp(r.FirstByteAt), stamp(r.EndedAt))
	}
	return found
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339Nano)
}
