package vllmsim

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are totals since the start or the last reset.
type Stats struct {
	// Requests counts inference requests, refused ones included.
	Requests int `json:"requests"`
	// Running counts requests being answered. One leaves the count before its
	// last byte is written, or as soon as its client is gone, so that nobody
	// who saw an answer end can find it still counted.
	Running    int `json:"running"`
	MaxRunning int `json:"max_running"`
	Waiting    int `json:"waiting"` // of them, for a place in the batch
	Finished   int `json:"finished"`
	Aborted    int `json:"aborted"`
	Cut        int `json:"cut"`
	// PromptTokens and GenerationTokens equal the counters on /metrics: the
	// prompt is counted n times.
	PromptTokens     int64 `json:"prompt_tokens"`
	GenerationTokens int64 `json:"generation_tokens"`
	// Groups count by the script's group.
	Groups map[string]Group `json:"groups,omitempty"`
}

// Group is the part of [Stats] of one group.
type Group struct {
	Requests   int `json:"requests"`
	Running    int `json:"running"`
	MaxRunning int `json:"max_running"`
}

// tally holds the totals and everything /metrics shows.
type tally struct {
	began     time.Time
	generated atomic.Int64 // beside the mutex: one addition per token

	mu sync.Mutex
	Stats
	success       map[string]int64 // by finish reason
	cachedTokens  int64
	cacheQueries  int64
	busy          int64          // refused by the queue limit
	sequences     int            // choices in the batch
	sequencesWait int            // choices waiting for it
	adapters      map[string]int // running requests by adapter
}

func newTally() *tally {
	return &tally{began: time.Now(), success: make(map[string]int64), adapters: make(map[string]int), Stats: Stats{Groups: make(map[string]Group)}}
}

func (t *tally) stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.Stats
	s.Groups = maps.Clone(s.Groups)
	s.GenerationTokens = t.generated.Load()
	return s
}

func (t *tally) do(f func(*tally)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(t)
}

// enter counts a request in.
func (t *tally) enter(group string) {
	t.do(func(t *tally) {
		t.Requests++
		t.Running++
		t.MaxRunning = max(t.MaxRunning, t.Running)
		if group != "" {
			g := t.Groups[group]
			g.Requests++
			g.Running++
			g.MaxRunning = max(g.MaxRunning, g.Running)
			t.Groups[group] = g
		}
	})
}

// leave counts it out.
func (t *tally) leave(group string) {
	t.do(func(t *tally) {
		t.Running--
		if group != "" {
			g := t.Groups[group]
			g.Running--
			t.Groups[group] = g
		}
	})
}
