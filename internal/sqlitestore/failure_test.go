package sqlitestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// waitQueued waits until n writes are queued behind a stalled writer.
func waitQueued(t *testing.T, s *sqlitestore.Store, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.Queued() < n {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("queued: got %d, want %d", s.Queued(), n)
		}
	}
}

func TestOneBadRowFailsAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	release := s.Stall()
	var (
		wg   sync.WaitGroup
		errs [21]error
	)
	for i := range errs {
		wg.Go(func() {
			if i == 10 {
				errs[i] = s.Poison(t.Context())
				return
			}
			errs[i] = s.Begin(t.Context(), intent(fmt.Sprint("a", i)))
		})
	}
	waitQueued(t, s, len(errs))
	release()
	wg.Wait()
	for i, err := range errs {
		if i == 10 && !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("bad row: got %v, want ErrUnavailable", err)
		}
		if i != 10 && err != nil {
			t.Errorf("neighbour %d: got %v", i, err)
		}
	}
	if got := len(rows(t, s.Reader, ledger.Filter{})); got != 20 {
		t.Errorf("rows: got %d, want 20", got)
	}
	wantSound(t, path)
}

func TestFullDiskRefusesAndRecoversWithoutRestart(t *testing.T) {
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path, Log: hclog.New(&hclog.LoggerOptions{Output: &log, JSONFormat: true})})
	ctx := t.Context()
	if err := s.Exec(ctx, "PRAGMA max_page_count = 60"); err != nil {
		t.Fatal(err)
	}
	promised, refused := beginUntilRefused(t, s)
	if refused == 0 || len(promised) == 0 {
		t.Fatalf("promised %d, refused %d: the disk was never full", len(promised), refused)
	}
	wantSound(t, path)

	if err := s.Exec(ctx, "PRAGMA max_page_count = 1073741823"); err != nil {
		t.Fatal(err)
	}
	for _, lease := range promised {
		if _, _, err := s.Settle(ctx, complete(lease, 10, 5)); err != nil {
			t.Fatalf("Settle(%s) after space returned: %v", lease, err)
		}
	}
	if err := s.Begin(ctx, intent("after")); err != nil {
		t.Errorf("Begin after space returned: %v", err)
	}
	if got := len(rows(t, s.Reader, ledger.Filter{})); got != len(promised)+1 {
		t.Errorf("rows: got %d, want %d", got, len(promised)+1)
	}
	wantSound(t, path)
	if got := strings.Count(log.String(), "ledger cannot be written"); got != 1 {
		t.Errorf("failure logged %d times, want once:\n%s", got, log.String())
	}
	if !strings.Contains(log.String(), "ledger is written again") {
		t.Errorf("return not logged:\n%s", log.String())
	}
}

// beginUntilRefused begins requests until 20 were refused.
func beginUntilRefused(t *testing.T, s *sqlitestore.Store) (promised []string, refused int) {
	t.Helper()
	for i := 0; refused < 20 && i < 10000; i++ {
		lease := fmt.Sprintf("lease-%06d", i)
		switch err := s.Begin(t.Context(), intent(lease)); {
		case err == nil:
			promised = append(promised, lease)
		case errors.Is(err, ledger.ErrUnavailable):
			refused++
			if _, err := s.Get(t.Context(), lease); !errors.Is(err, ledger.ErrUnknown) {
				t.Fatalf("refused intent: got %v, want ErrUnknown", err)
			}
		default:
			t.Fatal(err)
		}
	}
	return promised, refused
}

func TestCallersAreBoundedByTheirContext(t *testing.T) {
	s := open(t, sqlitestore.Options{MaxQueue: 2})
	if err := s.Begin(t.Context(), intent("a")); err != nil {
		t.Fatal(err)
	}
	release := s.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	var wg sync.WaitGroup
	errs := make([]error, 3)
	wg.Go(func() { _, _, errs[0] = s.Settle(ctx, complete("a", 10, 5)) })
	waitQueued(t, s, 1)
	wg.Go(func() { errs[1] = s.Begin(ctx, intent("b")) })
	waitQueued(t, s, 2)
	wg.Go(func() { errs[2] = s.Begin(ctx, intent("c")) }) // finds the queue full
	wg.Wait()
	for i, err := range errs {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("caller %d: got %v, want DeadlineExceeded", i, err)
		}
	}
	if errors.Is(errs[0], ledger.ErrUnavailable) {
		t.Errorf("a queued settlement may still be written: got %v", errs[0])
	}
	if !errors.Is(errs[2], ledger.ErrUnavailable) {
		t.Errorf("a write that was not queued is certainly not written: got %v", errs[2])
	}
	release()
	if err := s.Ping(t.Context()); err != nil { // behind all that was queued
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "a")
	if err != nil || r.Reason != ledger.Complete {
		t.Errorf("the settlement whose caller left: got %+v, %v, want it written", r, err)
	}
	for _, lease := range []string{"b", "c"} {
		if _, err := s.Get(t.Context(), lease); !errors.Is(err, ledger.ErrUnknown) {
			t.Errorf("intent %s whose caller left: got %v, want ErrUnknown", lease, err)
		}
	}
}

func TestCloseWritesWhatIsQueued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	release := s.Stall()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := s.Begin(t.Context(), intent(fmt.Sprint("a", i))); err != nil {
				t.Errorf("Begin: %v", err)
			}
		})
	}
	waitQueued(t, s, 50)
	wg.Go(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	release()
	wg.Wait()
	if got := len(rows(t, open(t, sqlitestore.Options{Path: path}).Reader, ledger.Filter{})); got != 50 {
		t.Errorf("rows: got %d, want 50", got)
	}
}

func TestCloseLosesNoCaller(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				// Without a deadline: a caller that Close forgot would hang the test.
				err := s.Begin(context.Background(), intent(fmt.Sprintf("%d-%d", w, i)))
				if errors.Is(err, ledger.ErrUnavailable) {
					return
				}
				if err != nil {
					t.Errorf("Begin: %v", err)
				}
			}
		})
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := s.Ping(t.Context()); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Ping after Close: got %v, want ErrUnavailable", err)
	}
}
