package central_test

import (
	"bufio"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/central"
	"tollgate/internal/ledger"
	"tollgate/internal/pgtest"
	"tollgate/internal/sqlitestore"
)

// What makes the test binary the gateway of the kill test: its ledger, the file
// with the connection string, the round and how many requests it is to make.
const (
	childLedger   = "TOLLGATE_TEST_SHIP_LEDGER"
	childPostgres = "TOLLGATE_TEST_SHIP_POSTGRES"
	childRound    = "TOLLGATE_TEST_SHIP_ROUND"
	childRequests = "TOLLGATE_TEST_SHIP_REQUESTS"
)

// forgetful is an outbox that fails to note what was confirmed, every tenth
// time: the batch is sent again.
type forgetful struct {
	central.Source
	marks int
}

func (f *forgetful) SetMark(ctx context.Context, name string, value int64) error {
	if f.marks++; f.marks%10 == 0 {
		return fmt.Errorf("the disk is full for a moment")
	}
	return f.Source.SetMark(ctx, name, value)
}

// child is a gateway: it settles requests, corrects some of them, ships, and is
// killed. It prints a line for every hundred.
func child() {
	ctx := context.Background()
	s, err := sqlitestore.Open(ctx, sqlitestore.Options{Path: os.Getenv(childLedger), Gateway: "gate-1", Outbox: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return
	}
	l, err := central.Open(os.Getenv(childPostgres))
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return
	}
	shipper := central.NewShipper(l, &forgetful{Source: s}, "gate-1", sqlitestore.MarkShipped, hclog.NewNullLogger(), central.NewMetrics(prometheus.NewRegistry()))
	go func() { _ = shipper.Run(ctx) }()
	n, _ := strconv.Atoi(os.Getenv(childRequests))
	if err := requests(ctx, s, os.Getenv(childRound), n, func() { fmt.Fprintln(os.Stdout, "hundred") }); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return
	}
	select {} // killed
}

// requests makes n requests from several clients, whose clocks are days apart.
// Every seventh is settled as an estimate and then corrected.
func requests(ctx context.Context, s *sqlitestore.Store, round string, n int, hundred func()) error {
	const clients = 16
	var wg sync.WaitGroup
	failed := make(chan error, clients)
	for c := range clients {
		wg.Go(func() {
			for i := c; i < n; i += clients {
				if err := oneRequest(ctx, s, fmt.Sprintf("%s-%d", round, i), i); err != nil {
					failed <- err
					return
				}
				if i%100 == 0 {
					hundred()
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}

func oneRequest(ctx context.Context, s *sqlitestore.Store, lease string, i int) error {
	in := intent(lease)
	in.KeyID, in.Model = fmt.Sprint("key-", i%5), fmt.Sprint("m-", i%3)
	in.StartedAt = noon.Add(time.Duration(i%16-8)*12*time.Hour + time.Duration(i)*time.Millisecond)
	if err := s.Begin(ctx, in); err != nil {
		return err
	}
	prompt, completion := truth(lease)
	if i%7 == 0 {
		if _, _, err := s.Settle(ctx, settlement(&in, ledger.Estimated, prompt+100, 1)); err != nil {
			return err
		}
	}
	_, _, err := s.Settle(ctx, settlement(&in, ledger.Exact, prompt, completion))
	return err
}

// truth is what a request used.
func truth(lease string) (prompt, completion int64) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(lease))
	return int64(h.Sum32() % 1000), int64(h.Sum32() / 1000 % 1000)
}

// TestNothingIsLostOrDoubled kills the gateway and PostgreSQL again and again
// while requests are settled, corrected and shipped, some batches twice. In the
// end the central ledger has every settled row of the gateway as it stands
// there, the rollups are their sums, and exact rows say the truth.
func TestNothingIsLostOrDoubled(t *testing.T) {
	total, kills := 8_000, 3
	if os.Getenv("PROOF") == "1" {
		total, kills = 1_000_000, 20
	}
	pg := pgtest.Start(t)
	file, path := pg.DatabaseFile(), filepath.Join(t.TempDir(), "ledger.db")
	stop := killAgainAndAgain(t, pg, kills)
	for round := range kills {
		runAndKill(t, path, file, round, total/(kills+1))
	}
	stop()
	s, l := open(t, path), dial(t, file)
	ship(t, l, &forgetful{Source: s}, "gate-1", prometheus.NewRegistry())
	made := 0
	if err := s.Each(context.Background(), ledger.Filter{}, func(ledger.Record) error { made++; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := requests(context.Background(), s, "last", max(0, total-made), func() {}); err != nil {
		t.Fatal(err)
	}
	leases, err := s.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range leases {
		if _, err := s.Recover(context.Background(), []string{r.LeaseID}, ledger.GatewayCrash, noon.AddDate(0, 0, 9)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Minute, "an empty outbox", func() bool {
		mark, err := s.Mark(context.Background(), sqlitestore.MarkShipped)
		if err != nil {
			return false
		}
		left, err := s.Backlog(context.Background(), mark)
		return err == nil && left.Rows == 0
	})
	wantSame(t, l, s)
	compareTruth(t, s, l)
}

// compareTruth compares sums of the central ledger with those of the gateway's
// rows, and these with what the requests used.
func compareTruth(t *testing.T, s *sqlitestore.Store, l *central.Ledger) {
	t.Helper()
	var want [3]int64
	crashed := 0
	if err := s.Each(context.Background(), ledger.Filter{}, func(r ledger.Record) error {
		want[0]++
		want[1] += r.Counts.Prompt
		want[2] += r.Counts.Completion
		prompt, completion := truth(r.LeaseID)
		if r.Quality != ledger.Exact {
			crashed++ // it died between two writes of this one
		} else if r.Counts.Prompt != prompt || r.Counts.Completion != completion {
			t.Errorf("%s: got %d + %d, want %d + %d", r.LeaseID, r.Counts.Prompt, r.Counts.Completion, prompt, completion)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantSums(t, l, "all", want[:]...)
	t.Logf("%d requests, %d of them cut by a kill: rows and rollups equal", want[0], crashed)
}

// killAgainAndAgain kills the server and starts it again, n times in all, from
// another goroutine. stop waits for the end of it.
func killAgainAndAgain(t *testing.T, pg *pgtest.Server, n int) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			time.Sleep(time.Duration(500+rand.IntN(1000)) * time.Millisecond)
			pg.Kill()
			time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
			pg.Start()
		}
	}()
	return func() { <-done }
}

// runAndKill runs a gateway until it has made most of its requests.
func runAndKill(t *testing.T, path, file string, round, n int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childLedger+"="+path, childPostgres+"="+file, fmt.Sprint(childRound, "=", round), fmt.Sprint(childRequests, "=", n))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	most := n / 100 * (60 + rand.IntN(40)) / 100
	lines := bufio.NewScanner(out)
	for i := 0; i < most && lines.Scan(); i++ {
	}
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("round %d: the gateway ended by itself: %v", round, err)
	}
}
