package upstream

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"tollgate/bench/internal/histogram"
)

// PromptTokens is what the upstream says of every prompt.
const PromptTokens = 18

// Record is the truth of one request.
type Record struct {
	Written  int  `json:"written"`  // tokens that were written to the gateway
	Done     bool `json:"done"`     // the answer was written to its end
	Attempts int  `json:"attempts"` // how often the request came
}

// Truth is what the upstream has done since the last reset.
type Truth struct {
	Requests int64               `json:"requests"` // with and without an id
	Tokens   int64               `json:"tokens"`
	Late     histogram.Histogram `json:"late"` // ns that chunks were written after their time
	Records  map[string]Record   `json:"records"`
}

// account is the record of one request while it is written. Its counts have
// one writer.
type account struct {
	written  atomic.Int32
	done     atomic.Bool
	attempts atomic.Int32
}

// book is the upstream's own ledger.
type book struct {
	requests, tokens atomic.Int64
	late             atomic.Pointer[histogram.Histogram]
	mu               sync.Mutex
	accounts         map[string]*account // guarded by mu
}

func newBook() *book {
	b := &book{accounts: map[string]*account{}}
	b.late.Store(&histogram.Histogram{})
	return b
}

// open starts an account; requests without an id have one that nobody reads.
func (b *book) open(id string) *account {
	b.requests.Add(1)
	if id == "" {
		return &account{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[id]
	if a == nil {
		a = &account{}
		b.accounts[id] = a
	}
	a.attempts.Add(1)
	return a
}

func (b *book) add(a *account, tokens int) {
	a.written.Add(int32(tokens)) //nolint:gosec // a few thousand at most
	b.tokens.Add(int64(tokens))
}

func (b *book) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.accounts)
	b.requests.Store(0)
	b.tokens.Store(0)
	b.late.Store(&histogram.Histogram{})
}

func (b *book) write(w io.Writer) error {
	b.mu.Lock()
	records := make(map[string]Record, len(b.accounts))
	for id, a := range b.accounts {
		records[id] = Record{Written: int(a.written.Load()), Done: a.done.Load(), Attempts: int(a.attempts.Load())}
	}
	b.mu.Unlock()
	t := struct {
		Requests int64                `json:"requests"`
		Tokens   int64                `json:"tokens"`
		Late     *histogram.Histogram `json:"late"`
		Records  map[string]Record    `json:"records"`
	}{b.requests.Load(), b.tokens.Load(), b.late.Load(), records}
	if err := json.NewEncoder(w).Encode(t); err != nil {
		return fmt.Errorf("write truth: %w", err)
	}
	return nil
}
