package sqlitestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/usage"
)

// crashLedger, when set, makes the test binary the child of the crash test.
const crashLedger = "TOLLGATE_TEST_CRASH_LEDGER"

// crashChild writes requests from many goroutines and reports each
// acknowledgement as a line on stdout, until it is killed.
func crashChild(path string) {
	ctx := context.Background()
	s, err := sqlitestore.Open(ctx, sqlitestore.Options{Path: path})
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return
	}
	round := os.Getenv(crashLedger + "_ROUND")
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				lease := fmt.Sprintf("%s-%d-%d", round, w, i)
				if err := crashRequest(ctx, s, lease, int64(i)); err != nil {
					fmt.Fprintln(os.Stderr, "child:", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// crashRequest writes one request and says what was acknowledged. A line goes
// out in one write(2), which the kernel keeps whatever becomes of the process.
func crashRequest(ctx context.Context, s *sqlitestore.Store, lease string, i int64) error {
	if err := s.Begin(ctx, intent(lease)); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "B %s %d\n", lease, i)
	running := usage.None()
	running.Prompt, running.Completion = 10, i
	if err := s.Checkpoint(ctx, []ledger.Checkpoint{{LeaseID: lease, Counts: running}}); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "C %s %d\n", lease, i)
	if _, _, err := s.Settle(ctx, complete(lease, 10, i+1)); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "S %s %d\n", lease, i)
	return nil
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	total := 0
	for round := range rounds {
		acks := killUnderLoad(t, path, round)
		total += len(acks)
		s, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Path: path})
		if err != nil {
			t.Fatalf("round %d: open after the kill: %v", round, err)
		}
		checkAcks(t, s, acks)
		recovered, err := s.Recover(t.Context(), leasesOf(t, s), ledger.GatewayCrash, noon.Add(time.Hour))
		if err != nil || recovered > 16 {
			t.Errorf("round %d: recovered %d, %v, want at most one for each of 16 writers", round, recovered, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantSound(t, path) // the primary key and the rollups exclude duplicates
	}
	t.Logf("%d rounds, %d acknowledged requests", rounds, total)
	if total < rounds {
		t.Errorf("acknowledged: got %d in %d rounds, the load never ran", total, rounds)
	}
}

// killUnderLoad runs a child until SIGKILL and returns the last
// acknowledgement of each lease: its letter and number.
func killUnderLoad(t *testing.T, path string, round int) map[string]string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashLedger+"="+path, fmt.Sprintf("%s_ROUND=%d", crashLedger, round))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acks := map[string]string{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if len(acks) == 0 { // the load runs: the end comes at a random moment of it
			kill := time.AfterFunc(time.Duration(1+rand.IntN(200))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
		}
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		lease, n, _ := strings.Cut(rest, " ")
		acks[lease] = kind + n
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("round %d: the child ended by itself: %v", round, err)
	}
	return acks
}

func checkAcks(t *testing.T, s *sqlitestore.Store, acks map[string]string) {
	t.Helper()
	for lease, ack := range acks {
		r, err := s.Get(t.Context(), lease)
		if errors.Is(err, ledger.ErrUnknown) {
			t.Errorf("%s was acknowledged (%s) and is lost", lease, ack)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		if _, err := fmt.Sscan(ack[1:], &n); err != nil {
			t.Fatal(err)
		}
		switch {
		case ack[0] == 'S' && (r.Open() || r.Counts.Completion != n+1):
			t.Errorf("%s: settled with %d, found %+v", lease, n+1, r)
		case ack[0] == 'C' && r.Counts.Completion < n:
			t.Errorf("%s: checkpoint of %d, found %+v", lease, n, r)
		}
	}
}
