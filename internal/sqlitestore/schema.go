package sqlitestore

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations[i] brings a ledger from schema version i to i+1. What was
// released is never edited: a change is one more entry.
var migrations = []string{
	// Counts are null where the engine said nothing; times are Unix µs.
	`CREATE TABLE requests (
		lease_id          TEXT PRIMARY KEY,
		request_id        TEXT NOT NULL,
		key_id            TEXT NOT NULL,
		user              TEXT NOT NULL,
		model             TEXT NOT NULL,
		endpoint          TEXT NOT NULL,
		engine            TEXT NOT NULL,
		stream            INTEGER NOT NULL,
		n                 INTEGER NOT NULL,
		prompts           INTEGER NOT NULL,
		status            INTEGER NOT NULL DEFAULT 0,
		started_at        INTEGER NOT NULL,
		first_byte_at     INTEGER,
		ended_at          INTEGER,
		end_reason        TEXT,
		quality           TEXT,
		prompt_tokens     INTEGER,
		completion_tokens INTEGER,
		cached_tokens     INTEGER,
		reasoning_tokens  INTEGER,
		reserved_tokens   INTEGER NOT NULL,
		client_addr       TEXT NOT NULL
	) STRICT;
	CREATE INDEX requests_by_request ON requests (request_id);
	CREATE INDEX requests_by_start ON requests (started_at);
	CREATE INDEX requests_by_end ON requests (ended_at) WHERE ended_at IS NOT NULL;
	CREATE INDEX requests_open ON requests (started_at) WHERE end_reason IS NULL;

	-- One row per key, UTC day of the start, user and model. The dropped_
	-- columns are the part whose rows retention has deleted, so that a rollup
	-- always equals its rows plus what was dropped.
	CREATE TABLE rollups (
		key_id                    TEXT NOT NULL,
		day                       TEXT NOT NULL,
		user                      TEXT NOT NULL,
		model                     TEXT NOT NULL,
		requests                  INTEGER NOT NULL,
		prompt_tokens             INTEGER NOT NULL,
		completion_tokens         INTEGER NOT NULL,
		dropped_requests          INTEGER NOT NULL DEFAULT 0,
		dropped_prompt_tokens     INTEGER NOT NULL DEFAULT 0,
		dropped_completion_tokens INTEGER NOT NULL DEFAULT 0,
		PRIMARY KEY (key_id, day, user, model)
	) STRICT, WITHOUT ROWID;

	-- What Ping writes.
	CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL) STRICT;`,

	// One index instead of two, and each request touches one page of it instead
	// of two: what is open stands beside what has just ended.
	`DROP INDEX requests_open;
	DROP INDEX requests_by_end;
	CREATE INDEX requests_by_end ON requests (coalesce(ended_at, 9223372036854775807));`,

	// What several gateways and a meter inside Envoy need to know of a row. All
	// of it is null in the rows of an older program.
	`ALTER TABLE requests ADD COLUMN requested_model TEXT;
	ALTER TABLE requests ADD COLUMN meter TEXT;
	ALTER TABLE requests ADD COLUMN change INTEGER;
	ALTER TABLE requests ADD COLUMN gateway TEXT;
	ALTER TABLE requests ADD COLUMN end_user TEXT;
	ALTER TABLE requests ADD COLUMN secret TEXT;
	CREATE INDEX requests_by_change ON requests (change) WHERE change IS NOT NULL;

	-- Single values that outlive rows, by name.
	CREATE TABLE marks (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;`,

	// What people changed, and the last state of each thing that the audit knows of,
	// so that a change is told once, whenever it is seen.
	`CREATE TABLE audit (
		seq     INTEGER PRIMARY KEY,
		at      INTEGER NOT NULL,
		gateway TEXT NOT NULL,
		who     TEXT NOT NULL,
		origin  TEXT NOT NULL,
		action  TEXT NOT NULL,
		target  TEXT NOT NULL,
		before  TEXT,
		after   TEXT,
		prev    TEXT NOT NULL,
		hash    TEXT NOT NULL
	) STRICT;
	CREATE TABLE audit_states (
		kind  TEXT NOT NULL,
		name  TEXT NOT NULL,
		state TEXT NOT NULL,
		PRIMARY KEY (kind, name)
	) STRICT, WITHOUT ROWID;`,

	// The identity of a request's span, so that a span outlives the process that began
	// it. Null in the rows of an older program.
	`ALTER TABLE requests ADD COLUMN trace TEXT;`,

	// Rollups by the name that was asked for and by end user too, with cached tokens
	// and errors. What retention has deleted before has lost these four.
	`ALTER TABLE rollups RENAME TO old_rollups;
	CREATE TABLE rollups (
		key_id                    TEXT NOT NULL,
		day                       TEXT NOT NULL,
		user                      TEXT NOT NULL,
		model                     TEXT NOT NULL,
		requested_model           TEXT NOT NULL,
		end_user                  TEXT NOT NULL,
		requests                  INTEGER NOT NULL,
		prompt_tokens             INTEGER NOT NULL,
		completion_tokens         INTEGER NOT NULL,
		cached_tokens             INTEGER NOT NULL,
		errors                    INTEGER NOT NULL,
		dropped_requests          INTEGER NOT NULL DEFAULT 0,
		dropped_prompt_tokens     INTEGER NOT NULL DEFAULT 0,
		dropped_completion_tokens INTEGER NOT NULL DEFAULT 0,
		dropped_cached_tokens     INTEGER NOT NULL DEFAULT 0,
		dropped_errors            INTEGER NOT NULL DEFAULT 0,
		PRIMARY KEY (key_id, day, user, model, requested_model, end_user)
	) STRICT, WITHOUT ROWID;
	INSERT INTO rollups SELECT key_id, date(started_at / 1000000, 'unixepoch'), user, model, coalesce(requested_model, ''), coalesce(end_user, ''),
		count(*), sum(coalesce(prompt_tokens, 0)), sum(coalesce(completion_tokens, 0)), sum(coalesce(cached_tokens, 0)),
		sum(end_reason IS NOT NULL AND end_reason NOT IN ('complete', 'client_abort')), 0, 0, 0, 0, 0
		FROM requests GROUP BY 1, 2, 3, 4, 5, 6;
	INSERT INTO rollups SELECT key_id, day, user, model, '', '', dropped_requests, dropped_prompt_tokens, dropped_completion_tokens, 0, 0,
		dropped_requests, dropped_prompt_tokens, dropped_completion_tokens, 0, 0 FROM old_rollups WHERE dropped_requests > 0
		ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
			completion_tokens = completion_tokens + excluded.completion_tokens, dropped_requests = excluded.dropped_requests,
			dropped_prompt_tokens = excluded.dropped_prompt_tokens, dropped_completion_tokens = excluded.dropped_completion_tokens;
	DROP TABLE old_rollups;
	CREATE INDEX rollups_by_day ON rollups (day);

	-- Ends that somebody looks for are few among many.
	CREATE INDEX requests_by_bad_end ON requests (end_reason, started_at) WHERE end_reason <> 'complete';`,
}

// ended is when a request ended, in Unix µs, as the index has it: what is open
// ends after everything else. A query must use these words, or the index does
// not serve it.
const (
	ended  = "coalesce(ended_at, " + never + ")"
	never  = "9223372036854775807"
	isOpen = ended + " = " + never + " AND end_reason IS NULL"
)

// SchemaVersion is the version of the ledger that this code reads and writes.
func SchemaVersion() int { return len(migrations) }

// migrate brings the ledger to the current version, each step in a transaction
// of its own.
func migrate(ctx context.Context, c *sql.Conn) error {
	version, err := readVersion(ctx, c)
	if err != nil {
		return err
	}
	for ; version < SchemaVersion(); version++ {
		// A script of several statements runs as one call; the version is part
		// of the same transaction, so that a crash repeats the whole step or none.
		script := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT", migrations[version], version+1)
		if _, err := c.ExecContext(ctx, script); err != nil {
			_, _ = c.ExecContext(ctx, "ROLLBACK") // nothing to roll back is fine: the step's error counts
			return fmt.Errorf("migrate ledger to version %d: %w", version+1, err)
		}
	}
	return nil
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// readVersion returns the schema version of the ledger, 0 for an empty file.
func readVersion(ctx context.Context, q queryer) (int, error) {
	var version, tables int
	if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("read ledger version: %w", err)
	}
	if err := q.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return 0, fmt.Errorf("read ledger schema: %w", err)
	}
	switch {
	case version > SchemaVersion():
		return 0, fmt.Errorf("%w: it has version %d and this program knows up to %d: start the newer tollgate that wrote it, "+
			"or put back a backup from before the upgrade", ErrSchema, version, SchemaVersion())
	case version == 0 && tables > 0:
		return 0, fmt.Errorf("%w: the file holds another database", ErrSchema)
	}
	return version, nil
}
