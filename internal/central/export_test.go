package central

import (
	"context"

	"tollgate/internal/ledger"
)

// MakeDays makes the partitions that rows need.
func (l *Ledger) MakeDays(ctx context.Context, rows []ledger.Record) error {
	if err := l.migrate(ctx); err != nil {
		return err
	}
	return l.makeDays(ctx, rows)
}
