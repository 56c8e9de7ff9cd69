package sqlitestore_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// requestsThrough is how many requests go through the ledger alone; PROOF=1
// asks for the full form.
func requestsThrough() int {
	if os.Getenv("PROOF") == "1" {
		return 1_000_000
	}
	return 20_000 / thin
}

// TestManyRequestsSumUp sends requests through the ledger from 64 writers and
// compares its sums with what was sent. Figures are printed, not asserted.
func TestManyRequestsSumUp(t *testing.T) {
	const writers = 64
	n := requestsThrough() / writers * writers
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	var prompt, completion int64
	start := time.Now()
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			mine := make([]time.Duration, 0, n/writers)
			var p, c int64
			for i := range n / writers {
				// In the order of arrival, as the gate makes them.
				in := intent(fmt.Sprintf("%012x%020x", i, rng.Uint64()))
				in.KeyID = fmt.Sprint("key-", rng.IntN(100))
				in.StartedAt = noon.Add(time.Duration(i) * time.Millisecond)
				if err := s.Begin(t.Context(), in); err != nil {
					t.Errorf("begin: %v", err)
					return
				}
				st := complete(in.LeaseID, rng.Int64N(2000), rng.Int64N(1000))
				st.FirstByteAt, st.EndedAt = in.StartedAt.Add(time.Second), in.StartedAt.Add(2*time.Second)
				p, c = p+st.Counts.Prompt, c+st.Counts.Completion
				before := time.Now()
				if _, _, err := s.Settle(t.Context(), st); err != nil {
					t.Errorf("settle: %v", err)
					return
				}
				mine = append(mine, time.Since(before))
			}
			mu.Lock()
			defer mu.Unlock()
			took, prompt, completion = append(took, mine...), prompt+p, completion+c
		})
	}
	wg.Wait()
	all := time.Since(start)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(took)
	t.Logf("%d requests in %v: %.0f a second (one intent and one settle each), settle p50 %v, p99 %v, %d bytes a request",
		n, all.Round(time.Millisecond), float64(n)/all.Seconds(), took[len(took)/2], took[len(took)*99/100], info.Size()/int64(n))
	wantSound(t, path)
	sumsAre(t, path, int64(n), prompt, completion)
}

// sumsAre compares the report and the streamed rows with the truth, and bounds
// the memory of the stream.
func sumsAre(t *testing.T, path string, requests, prompt, completion int64) {
	t.Helper()
	r, err := sqlitestore.OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	groups, err := r.Usage(t.Context(), ledger.Query{By: ledger.ByUser})
	if err != nil {
		t.Fatal(err)
	}
	if total := ledger.Total(groups); total.Requests != requests || total.PromptTokens != prompt || total.CompletionTokens != completion {
		t.Errorf("report: got %+v, want %d requests, %d + %d tokens", total, requests, prompt, completion)
	}
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var rows, p, c int64
	err = r.Each(t.Context(), ledger.Filter{}, func(rec ledger.Record) error {
		rows, p, c = rows+1, p+rec.Counts.Prompt, c+rec.Counts.Completion
		if rows == requests/2 {
			runtime.GC()
			runtime.ReadMemStats(&during)
		}
		return nil
	})
	if err != nil || rows != requests || p != prompt || c != completion {
		t.Errorf("rows: got %d with %d + %d (%v), want %d with %d + %d", rows, p, c, err, requests, prompt, completion)
	}
	if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("streaming the rows holds %d bytes", grown)
	}
}
