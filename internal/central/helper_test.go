package central_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tollgate/internal/central"
	"tollgate/internal/ledger"
	"tollgate/internal/pgtest"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/usage"
)

func TestMain(m *testing.M) {
	if os.Getenv(childLedger) != "" {
		child()
		os.Exit(3) //nolint:forbidigo // the child of the kill test: it is to be killed
	}
	goleak.VerifyTestMain(withServer{m})
}

// withServer ends the shared server before leaks are looked for.
type withServer struct{ *testing.M }

func (m withServer) Run() int {
	defer pgtest.Stop()
	return m.M.Run()
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func intent(lease string) ledger.Intent {
	return ledger.Intent{
		LeaseID: lease, RequestID: "req-" + lease, KeyID: "key-1", User: "ann", Model: "m",
		Endpoint: "/v1/chat/completions", Engine: "127.0.0.1:8000", Stream: true, N: 1, Prompts: 1,
		StartedAt: noon, Reserved: 500, ClientAddr: "192.0.2.7",
		RequestedModel: "alias", EndUser: "eve", Secret: "0a1b2c3d",
	}
}

func settlement(in *ledger.Intent, q ledger.Quality, prompt, completion int64) ledger.Settlement {
	return ledger.Settlement{
		LeaseID: in.LeaseID, Status: 200, FirstByteAt: in.StartedAt.Add(time.Second), EndedAt: in.StartedAt.Add(2 * time.Second),
		Reason: ledger.Complete, Quality: q,
		Counts: usage.Counts{Prompt: prompt, Completion: completion, Cached: usage.Unsaid, Reasoning: usage.Unsaid},
	}
}

// settled is a row as it comes from a gateway.
func settled(lease string, change int64, q ledger.Quality, prompt, completion int64) ledger.Record {
	in := intent(lease)
	r, _, _ := ledger.Merge(ledger.Opened(in), settlement(&in, q, prompt, completion))
	r.Change, r.Gateway = change, "gate-1"
	return r
}

// dial opens the central ledger of a database.
func dial(tb testing.TB, file string) *central.Ledger {
	tb.Helper()
	l, err := central.Open(file)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.Close)
	return l
}

func open(tb testing.TB, path string) *sqlitestore.Store {
	tb.Helper()
	s, err := sqlitestore.Open(context.Background(), sqlitestore.Options{Path: path, Gateway: filepath.Base(path), Outbox: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// use writes and settles one request.
func use(tb testing.TB, s *sqlitestore.Store, in ledger.Intent, prompt, completion int64) {
	tb.Helper()
	if err := s.Begin(context.Background(), in); err != nil {
		tb.Fatal(err)
	}
	if _, _, err := s.Settle(context.Background(), settlement(&in, ledger.Exact, prompt, completion)); err != nil {
		tb.Fatal(err)
	}
}

// ship runs a shipper until stop is called, which also the end of the test does.
func ship(tb testing.TB, to *central.Ledger, from central.Source, name string, reg prometheus.Registerer) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s := central.NewShipper(to, from, name, sqlitestore.MarkShipped, hclog.NewNullLogger(), central.NewMetrics(reg))
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			tb.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	tb.Cleanup(stop)
	return stop
}

// eventually waits for a condition.
func eventually(tb testing.TB, within time.Duration, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(within); ; {
		if ok() {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("%s did not come about in %v", what, within)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// wantSound compares the rollups with the rows.
func wantSound(tb testing.TB, l *central.Ledger) {
	tb.Helper()
	found, err := l.Verify(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	for _, v := range found {
		tb.Errorf("invariant broken: %+v", v)
	}
}
