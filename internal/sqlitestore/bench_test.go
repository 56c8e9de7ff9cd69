package sqlitestore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/sqlitestore"
)

// BenchmarkSettle measures settlements per second and their 99th percentile by
// the number of callers, and the size of a settled request in the file. The
// intents are written before the clock starts.
func BenchmarkSettle(b *testing.B) {
	for _, sync := range []string{sqlitestore.SyncProcess, sqlitestore.SyncPower} {
		for _, writers := range []int{1, 64, 512} {
			b.Run(fmt.Sprintf("%s/%d", sync, writers), func(b *testing.B) { benchmarkSettle(b, sync, writers) })
		}
	}
}

func benchmarkSettle(b *testing.B, level string, writers int) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "ledger.db")
	s, err := sqlitestore.Open(context.Background(), sqlitestore.Options{Path: path, Sync: level})
	if err != nil {
		b.Fatal(err)
	}
	each(b, writers, func(i int64) error { return s.Begin(context.Background(), intent(fmt.Sprintf("%016x", i))) })
	b.ResetTimer()
	took := each(b, writers, func(i int64) error {
		_, _, err := s.Settle(context.Background(), complete(fmt.Sprintf("%016x", i), 1000, 300))
		return err
	})
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "settles/s")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	if err := s.Close(); err != nil { // folds the WAL in
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/float64(b.N), "file-B/op")
}

// each spreads b.N calls over goroutines and returns how long each took.
func each(b *testing.B, workers int, do func(i int64) error) []time.Duration {
	b.Helper()
	took := make([]time.Duration, b.N)
	var (
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range workers {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(b.N) {
					return
				}
				start := time.Now()
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	return took
}

// BenchmarkCheckpoint measures one batch of 1024 live streams.
func BenchmarkCheckpoint(b *testing.B) {
	s, err := sqlitestore.Open(context.Background(), sqlitestore.Options{Path: filepath.Join(b.TempDir(), "ledger.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	batch := checkpoints(b, s, 1024)
	for n := int64(1); b.Loop(); n++ {
		for i := range batch {
			batch[i].Counts.Completion = n
		}
		if err := s.Checkpoint(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRequest measures the CPU of one request alone: an intent and its
// settlement, each a commit of its own, as when the service is not busy.
func BenchmarkRequest(b *testing.B) {
	s, err := sqlitestore.Open(context.Background(), sqlitestore.Options{Path: filepath.Join(b.TempDir(), "ledger.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	before := cpu(b)
	for i := 0; b.Loop(); i++ {
		in := intent(fmt.Sprintf("%012x%020x", time.Now().UnixMilli(), rand.Uint64()))
		in.RequestID, in.StartedAt = fmt.Sprintf("%016x-%016x", rand.Uint64(), rand.Uint64()), time.Now()
		if err := s.Begin(context.Background(), in); err != nil {
			b.Fatal(err)
		}
		end := complete(in.LeaseID, 1000, 300)
		end.EndedAt = time.Now()
		if _, _, err := s.Settle(context.Background(), end); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpu is what this process has used so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
