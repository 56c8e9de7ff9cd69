// Package reconcile compares the ledger with vLLM's own token counters.
//
// vLLM and the ledger count the same work in two programs. While neither of them
// restarts, both grow by the same number of tokens for finished requests. For a request
// that was cut, the engine may be ahead by the tokens that it made after the gateway
// stopped reading; it is never behind.
package reconcile

import (
	"fmt"
	"strings"
	"time"

	"tollgate/internal/ledger"
)

// Counters are tokens: vllm:prompt_tokens_total, which grows by n × prompt, and
// vllm:generation_tokens_total.
type Counters struct {
	Prompt     int64 `json:"prompt_tokens"`
	Generation int64 `json:"generation_tokens"`
}

func (c Counters) minus(d Counters) Counters {
	return Counters{Prompt: c.Prompt - d.Prompt, Generation: c.Generation - d.Generation}
}

// Reading holds the counters of an engine at one moment.
type Reading struct {
	Counters
	// Started is when the engine's process began, in seconds since 1970; 0
	// where it does not say.
	Started float64 `json:"started,omitempty"`
}

// anew reports that the engine has restarted since an earlier reading: its start time
// differs, or a counter has gone back.
func (r Reading) anew(earlier Reading) bool {
	return r.Started != earlier.Started || r.Prompt < earlier.Prompt || r.Generation < earlier.Generation
}

// Account sums up some rows of the ledger in the way in which the engine counts.
type Account struct {
	Counters
	Finished int // complete, or refused before the engine did anything
	Cut      int // ended early: the engine may have made more
	Guessed  int // estimated: not in Counters
	Live     int // not ended; with their last checkpoint
}

func (a *Account) add(r *ledger.Record) {
	switch {
	case r.Open():
		a.Live++
	case r.Quality == ledger.Estimated:
		a.Guessed++
		return
	case r.Reason == ledger.Complete, r.Reason == ledger.Refused && r.Status < 500:
		a.Finished++
	default:
		a.Cut++
	}
	a.Prompt += int64(max(1, r.N)) * max(0, r.Counts.Prompt)
	a.Generation += max(0, r.Counts.Completion)
}

func (a *Account) merge(b Account) {
	a.Prompt += b.Prompt
	a.Generation += b.Generation
	a.Finished += b.Finished
	a.Cut += b.Cut
	a.Guessed += b.Guessed
	a.Live += b.Live
}

// Comparison is one engine over one window.
type Comparison struct {
	Engine       string // host:port
	Since, Until time.Time
	Growth       Counters // of the engine
	Ledger       Account  // of the requests that started in the window
	// Straddling is the number of requests that started before the window and ended in
	// it. The engine's growth contains a part of them, the ledger's contains nothing.
	Straddling int
}

// Drift returns the tokens by which the engine is ahead of the ledger; below 0 it is
// behind.
func (c Comparison) Drift() Counters { return c.Growth.minus(c.Ledger.Counters) }

// Judge explains the comparison in words and reports whether it is in order. The ledger
// may be at most allowed tokens above the engine. The engine may be at most allowed
// tokens above the ledger, or more where requests explain it: cut, estimated, live or
// straddling ones.
func (c Comparison) Judge(allowed int64) (verdict string, ok bool) {
	d := c.Drift()
	low, high := min(d.Prompt, d.Generation), max(d.Prompt, d.Generation)
	unsure := c.Ledger.Cut + c.Ledger.Guessed + c.Ledger.Live + c.Straddling
	switch {
	case low < -allowed:
		return fmt.Sprintf("the ledger is %d tokens above the engine", -low), false
	case high > allowed && unsure == 0:
		return fmt.Sprintf("the engine made %d tokens that are in no record", high), false
	case high > allowed:
		return fmt.Sprintf("the engine is %d tokens ahead, with %s", high, c.unsure()), true
	case d == Counters{}:
		return "equal", true
	}
	return fmt.Sprintf("within %d tokens", allowed), true
}

// unsure lists the kinds of requests for which the engine may have made more tokens.
func (c Comparison) unsure() string {
	var out []string
	for _, p := range []struct {
		n    int
		what string
	}{{c.Ledger.Cut, "cut"}, {c.Ledger.Guessed, "estimated"}, {c.Ledger.Live, "live"}, {c.Straddling, "begun before the window"}} {
		if p.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(out, ", ") + " requests"
}
