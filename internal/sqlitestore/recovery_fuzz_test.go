package sqlitestore_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/usage"
)

// FuzzRecovery writes what a script says, takes the files away as a crash of
// the machine leaves them - the end of the WAL missing, one byte of it wrong -
// and starts again. Whatever was lost, what is left must be the ledger as it
// stood after one of the writes, with every open request ended; with the files
// whole nothing may be lost. A second start has nothing left to do.
func FuzzRecovery(f *testing.F) {
	f.Add([]byte("\x00\x41\x82"), uint32(0), uint32(0))                                 // begin, checkpoint, settle; whole
	f.Add([]byte("\x00\x01\x02\x41\x03\x81\x00\x42\xc1\x04"), uint32(1), uint32(0))     // one byte short
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x81\x82\x83"), uint32(9000), uint32(0))      // some frames short
	f.Add([]byte("\x00\x01\x41\x42\x81\x82\x02\x42\x82\x03"), uint32(0), uint32(12345)) // one byte wrong
	f.Add([]byte{}, uint32(1<<31), uint32(7))                                           // nothing but a schema, lost
	f.Fuzz(func(t *testing.T, script []byte, short, wrong uint32) {
		dir := t.TempDir()
		states := play(t, filepath.Join(dir, "a.db"), script[:min(len(script), 16)])
		whole := leave(t, filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db"), short, wrong)

		got, ended := start(t, filepath.Join(dir, "b.db"))
		k := len(states) - 1
		for k >= 0 && !reflect.DeepEqual(got, states[k].rows) {
			k--
		}
		switch {
		case k < 0:
			t.Fatalf("the ledger after the start is that of no write: %+v", got)
		case whole && k != len(states)-1:
			t.Errorf("of whole files the state after write %d of %d came back", k, len(states)-1)
		case ended != states[k].open:
			t.Errorf("ended at the start: %d, want the %d that were open", ended, states[k].open)
		}
		wantSound(t, filepath.Join(dir, "b.db"))
		if again, ended := start(t, filepath.Join(dir, "b.db")); ended != 0 || !reflect.DeepEqual(again, got) {
			t.Errorf("the second start ended %d and changed %v to %v", ended, got, again)
		}
	})
}

// crashed is when the service started again.
var crashed = noon.Add(time.Hour)

// state is the ledger after a write, as it has to stand after a crash and a start.
type state struct {
	rows map[string]ledger.Record
	open int // requests that the start had to end
}

// play writes a script to a ledger and leaves it open until the test ends. One
// byte is one write: its upper two bits say what, the lower three whose.
func play(t *testing.T, path string, script []byte) []state {
	t.Helper()
	ctx := context.Background()
	s, err := sqlitestore.Open(ctx, sqlitestore.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	live := map[string]ledger.Record{}
	states := []state{recovered(live)}
	for i, c := range script {
		lease, n := fmt.Sprint("lease-", c&7), int64(i+1)
		row, known := live[lease]
		switch c >> 6 {
		case 0:
			err = s.Begin(ctx, intent(lease))
			if known != (err != nil) {
				t.Fatalf("begin %s: %v", lease, err)
			}
			if !known {
				row = ledger.Opened(intent(lease))
			}
		case 1:
			counts := usage.None()
			counts.Prompt, counts.Completion = 10, n
			err = s.Checkpoint(ctx, []ledger.Checkpoint{{LeaseID: lease, Counts: counts}})
			if known && row.Open() {
				row.Counts, _ = ledger.Grow(row.Counts, counts)
			}
			if err != nil {
				t.Fatal(err)
			}
		default:
			end := complete(lease, 10, n)
			if c>>6 == 3 {
				end.Reason, end.Quality = ledger.ClientAbort, ledger.Partial
			}
			_, _, err = s.Settle(ctx, end)
			if known != (err == nil) {
				t.Fatalf("settle %s: %v", lease, err)
			}
			if known {
				row, _, _ = ledger.Merge(row, end)
			}
		}
		if known || c>>6 == 0 {
			live[lease] = row
		}
		states = append(states, recovered(live))
	}
	return states
}

// recovered is what a start makes of the rows.
func recovered(live map[string]ledger.Record) state {
	s := state{rows: maps.Clone(live)}
	for id, row := range s.rows {
		if row.Open() {
			s.rows[id], _, _ = ledger.Merge(row, ledger.Recovery(&row, ledger.GatewayCrash, crashed))
			s.open++
		}
	}
	return s
}

// leave copies the files of a ledger that is open, with the last bytes of the
// WAL missing and one of them wrong, and reports whether they are whole.
func leave(t *testing.T, from, to string, short, wrong uint32) (whole bool) {
	t.Helper()
	wal, err := os.ReadFile(from + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	missing := int(short % uint32(len(wal)+1))
	wal = wal[:len(wal)-missing]
	if wrong > 0 && len(wal) > 0 {
		wal[wrong%uint32(len(wal))] ^= byte(wrong>>8) | 1
	}
	db, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{to: db, to + "-wal": wal} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return missing == 0 && wrong == 0
}

// start opens a ledger as the service does, ends what is open, and returns all
// rows by lease.
func start(t *testing.T, path string) (all map[string]ledger.Record, ended int) {
	t.Helper()
	s, err := sqlitestore.Open(context.Background(), sqlitestore.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	if ended, err = s.Recover(context.Background(), leasesOf(t, s), ledger.GatewayCrash, crashed); err != nil {
		t.Fatal(err)
	}
	all = map[string]ledger.Record{}
	for _, r := range rows(t, s.Reader, ledger.Filter{}) {
		r.Change = 0 // the numbers of the writes are not compared
		all[r.LeaseID] = r
	}
	return all, ended
}
