package central_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/pgtest"
	"tollgate/internal/sqlitestore"
)

// BenchmarkShipping is the way from SQLite to PostgreSQL of rows that wait, the
// pauses that leave requests their half included.
func BenchmarkShipping(b *testing.B) {
	const rows = 50_000
	pg := pgtest.Start(b)
	s := open(b, filepath.Join(b.TempDir(), "gate-1"))
	if err := requests(context.Background(), s, "bench", rows, func() {}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l := dial(b, pg.DatabaseFile())
		if err := s.SetMark(context.Background(), sqlitestore.MarkShipped, 0); err != nil {
			b.Fatal(err)
		}
		stop := ship(b, l, s, fmt.Sprint("gate-", b.N), prometheus.NewRegistry())
		for {
			mark, err := s.Mark(context.Background(), sqlitestore.MarkShipped)
			if err != nil {
				b.Fatal(err)
			}
			left, err := s.Backlog(context.Background(), mark)
			if err != nil {
				b.Fatal(err)
			}
			if left.Rows == 0 {
				break
			}
			time.Sleep(20 * time.Millisecond) // the question costs too
		}
		stop()
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
