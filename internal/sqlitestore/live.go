package sqlitestore

import "tollgate/internal/ledger"

// liveRows remembers the rows that are not settled, so that neither a
// checkpoint nor a settlement has to read what this process has written itself:
// nobody else writes (see lockFile). A row that is not here is read from the
// file. What a transaction changes is kept apart until it is committed.
type liveRows struct {
	rows   map[string]liveRow
	staged map[string]liveRow // of the transaction that runs
}

type liveRow struct {
	record ledger.Record
	rowid  int64 // SQLite's begin with 1; 0 = there is no such row
}

// liveMost bounds the rows remembered, far above the streams that one Envoy
// carries.
const liveMost = 1 << 16

func newLiveRows() *liveRows {
	return &liveRows{rows: make(map[string]liveRow), staged: make(map[string]liveRow)}
}

// get returns a row as the running transaction sees it.
func (l *liveRows) get(leaseID string) (ledger.Record, int64, bool) {
	row, ok := l.staged[leaseID]
	if !ok {
		row = l.rows[leaseID]
	}
	return row.record, row.rowid, row.rowid != 0
}

// set notes what the running transaction has made of a row.
func (l *liveRows) set(r ledger.Record, rowid int64) { l.staged[r.LeaseID] = liveRow{r, rowid} }

// gone notes that the running transaction has deleted a row.
func (l *liveRows) gone(leaseID string) { l.staged[leaseID] = liveRow{} }

// begin forgets what a transaction that failed has noted.
func (l *liveRows) begin() { clear(l.staged) }

// commit takes over what the transaction has noted. What is settled is
// forgotten: it is seldom asked for again.
func (l *liveRows) commit() {
	for id, row := range l.staged {
		_, known := l.rows[id]
		switch {
		case row.rowid == 0 || !row.record.Open():
			delete(l.rows, id)
		case known || len(l.rows) < liveMost:
			l.rows[id] = row
		}
	}
	clear(l.staged)
}
