// Package reconcile compares the ledger with vLLM's own token counters.
//
// What vLLM counts and what the ledger records are two accounts of the same
// work, kept by two programs. Over any time in which neither restarted, the
// engine's growth equals the ledger's for finished requests; for requests that
// were cut the engine may be ahead by what it made after the gateway stopped
// reading, never behind.
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

// Reading is what an engine says at one moment.
type Reading struct {
	Counters
	// Started is when the engine's process began, in seconds since 1970; 0
	// where it does not say.
	Started float64 `json:"started,omitempty"`
}

// anew reports that the engine has restarted since an earlier reading: it says
// so, or a counter has gone back.
func (r Reading) anew(earlier Reading) bool {
	return r.Started != earlier.Started || r.Prompt < earlier.Prompt || r.Generation < earlier.Generation
}

// Account is what the ledger says of some requests, as the engine counts it.
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
	// Straddling requests had started before the window and ended in it: the
	// engine's growth has a part of them, the ledger's has nothing.
	Straddling int
}

// Drift is how far the engine is ahead of the ledger; negative: behind.
func (c Comparison) Drift() Counters { return c.Growth.minus(c.Ledger.Counters) }

// Judge says what the comparison means and whether it is as it should be:
// the ledger at most allowed tokens above the engine, and the engine at most
// allowed tokens above the ledger, unless requests that were cut, guessed, are
// live or began before the window explain it.
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

// unsure lists the requests of which the engine may have made more.
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
