package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
)

// Backup writes a whole copy of the ledger at path as of one moment to a new
// file, which only its owner can read. It may run while a service writes. The
// WAL of the ledger grows until it is done. Errors: [os.ErrNotExist] where
// there is no ledger, [os.ErrExist] where the new file is there already,
// [ErrSchema]. A copy that fails leaves no file.
func Backup(ctx context.Context, path, to string) (err error) {
	r, err := OpenReadOnly(ctx, path) // refuses what is no ledger of this program
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // the operator names the copy
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(to)
		}
	}()
	// A connection of its own: the reader's may not write, not even elsewhere.
	db, err := sql.Open("sqlite", dsn(path, "mode=rw", "busy_timeout(5000)"))
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil { // takes a file that is there and empty
		return failed(ctx, "write backup", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}
