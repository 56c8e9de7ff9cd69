package central

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// migrations[i] brings the database from schema version i to i+1. What was
// released is never edited: a change is one more entry.
var migrations = []string{
	// The columns of the gateways' ledgers, in one partition for each UTC day of
	// the start. The replaced_ columns are what a correction has replaced, so that
	// the statement which writes it knows how far the rollup moves.
	`CREATE TABLE tollgate.requests (
		lease_id          text NOT NULL,
		request_id        text NOT NULL,
		key_id            text NOT NULL,
		"user"            text NOT NULL,
		model             text NOT NULL,
		endpoint          text NOT NULL,
		engine            text NOT NULL,
		stream            boolean NOT NULL,
		n                 bigint NOT NULL,
		prompts           bigint NOT NULL,
		status            bigint NOT NULL,
		started_at        timestamptz NOT NULL,
		first_byte_at     timestamptz,
		ended_at          timestamptz,
		end_reason        text,
		quality           text,
		prompt_tokens     bigint,
		completion_tokens bigint,
		cached_tokens     bigint,
		reasoning_tokens  bigint,
		reserved_tokens   bigint NOT NULL,
		client_addr       text NOT NULL,
		requested_model   text NOT NULL,
		meter             text NOT NULL,
		change            bigint,
		gateway           text NOT NULL,
		end_user          text NOT NULL,
		secret            text NOT NULL,
		replaced_prompt_tokens     bigint,
		replaced_completion_tokens bigint,
		PRIMARY KEY (lease_id, started_at)
	) PARTITION BY RANGE (started_at);
	CREATE INDEX requests_by_key ON tollgate.requests (key_id, started_at);

	-- The dropped_ columns are the part whose rows retention has dropped.
	CREATE TABLE tollgate.rollups (
		key_id                    text NOT NULL,
		day                       date NOT NULL,
		"user"                    text NOT NULL,
		model                     text NOT NULL,
		requests                  bigint NOT NULL,
		prompt_tokens             bigint NOT NULL,
		completion_tokens         bigint NOT NULL,
		dropped_requests          bigint NOT NULL DEFAULT 0,
		dropped_prompt_tokens     bigint NOT NULL DEFAULT 0,
		dropped_completion_tokens bigint NOT NULL DEFAULT 0,
		PRIMARY KEY (key_id, day, "user", model)
	);

	-- One row for each ledger file that was ever shipped from.
	CREATE TABLE tollgate.gateways (
		ledger         text PRIMARY KEY,
		name           text NOT NULL,
		last_change    bigint NOT NULL,
		behind_rows    bigint NOT NULL,
		behind_seconds double precision NOT NULL,
		seen_at        timestamptz NOT NULL
	);

	-- Rows that started before this are in the rollups only.
	CREATE TABLE tollgate.horizon (
		id             integer PRIMARY KEY CHECK (id = 1),
		dropped_before timestamptz NOT NULL
	);
	INSERT INTO tollgate.horizon VALUES (1, '-infinity');

	-- The keys of all gateways: a key file without secrets, and its number.
	CREATE TABLE tollgate.keys (
		id       integer PRIMARY KEY CHECK (id = 1),
		version  bigint NOT NULL,
		document text NOT NULL,
		who      text NOT NULL, -- made the last change
		origin   text NOT NULL  -- and from where
	);`,

	// What people changed, one chain for each gateway. Before and after are JSON
	// as it was hashed.
	`CREATE TABLE tollgate.audit (
		ledger  text NOT NULL,
		seq     bigint NOT NULL,
		at      timestamptz NOT NULL,
		gateway text NOT NULL,
		who     text NOT NULL,
		origin  text NOT NULL,
		action  text NOT NULL,
		target  text NOT NULL,
		before  text,
		after   text,
		prev    text NOT NULL,
		hash    text NOT NULL,
		PRIMARY KEY (ledger, seq)
	);
	CREATE INDEX audit_by_time ON tollgate.audit (at);`,

	// The identity of a request's span; empty where it was not traced.
	`ALTER TABLE tollgate.requests ADD COLUMN trace text NOT NULL DEFAULT '';`,

	// Rollups by the name that was asked for and by end user too, with cached tokens
	// and errors. What retention has dropped before has lost these four.
	`ALTER TABLE tollgate.requests ADD COLUMN replaced_cached_tokens bigint, ADD COLUMN replaced_errors bigint;
	ALTER TABLE tollgate.rollups
		ADD COLUMN requested_model       text NOT NULL DEFAULT '',
		ADD COLUMN end_user              text NOT NULL DEFAULT '',
		ADD COLUMN cached_tokens         bigint NOT NULL DEFAULT 0,
		ADD COLUMN errors                bigint NOT NULL DEFAULT 0,
		ADD COLUMN dropped_cached_tokens bigint NOT NULL DEFAULT 0,
		ADD COLUMN dropped_errors        bigint NOT NULL DEFAULT 0,
		DROP CONSTRAINT rollups_pkey,
		ADD PRIMARY KEY (key_id, day, "user", model, requested_model, end_user);
	DELETE FROM tollgate.rollups WHERE dropped_requests = 0;
	UPDATE tollgate.rollups SET requests = dropped_requests, prompt_tokens = dropped_prompt_tokens, completion_tokens = dropped_completion_tokens;
	INSERT INTO tollgate.rollups AS s (key_id, day, "user", model, requested_model, end_user, requests, prompt_tokens, completion_tokens, cached_tokens, errors)
	SELECT key_id, (started_at AT TIME ZONE 'UTC')::date, "user", model, requested_model, end_user, count(*), sum(coalesce(prompt_tokens, 0)),
		sum(coalesce(completion_tokens, 0)), sum(coalesce(cached_tokens, 0)),
		sum(CASE WHEN end_reason IS NULL OR end_reason IN ('complete', 'client_abort') THEN 0 ELSE 1 END)
		FROM tollgate.requests GROUP BY 1, 2, 3, 4, 5, 6
	ON CONFLICT (key_id, day, "user", model, requested_model, end_user) DO UPDATE SET requests = s.requests + excluded.requests,
		prompt_tokens = s.prompt_tokens + excluded.prompt_tokens, completion_tokens = s.completion_tokens + excluded.completion_tokens,
		cached_tokens = excluded.cached_tokens, errors = excluded.errors;`,
}

// SchemaVersion is the version of the database that this code reads and writes.
func SchemaVersion() int { return len(migrations) }

// Advisory locks of the database, which nothing else in it should take.
const (
	lockMigrate = 0x746f6c6c01 // "toll" and a number
	lockDays    = 0x746f6c6c02
	lockRetain  = 0x746f6c6c03
	lockKeys    = 0x746f6c6c04
)

// migrate brings the database to the current version, in one transaction that
// one gateway at a time runs.
func (l *Ledger) migrate(ctx context.Context) error {
	if l.migrated.Load() {
		return nil
	}
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(lockMigrate)); err != nil {
			return err
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('tollgate.schema_version') IS NOT NULL").Scan(&there); err != nil {
			return err
		}
		version := 0
		if there {
			if err := tx.QueryRow(ctx, "SELECT version FROM tollgate.schema_version").Scan(&version); err != nil {
				return err
			}
		} else if _, err := tx.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS tollgate;
			CREATE TABLE tollgate.schema_version (version integer NOT NULL);
			INSERT INTO tollgate.schema_version VALUES (0)`); err != nil {
			return err
		}
		if version > SchemaVersion() {
			return fmt.Errorf("%w: it has version %d and this program knows up to %d: start a newer tollgate here, its rows wait until then",
				ErrSchema, version, SchemaVersion())
		}
		for ; version < SchemaVersion(); version++ {
			if _, err := tx.Exec(ctx, migrations[version]); err != nil {
				return fmt.Errorf("to version %d: %w", version+1, err)
			}
		}
		_, err := tx.Exec(ctx, "UPDATE tollgate.schema_version SET version = $1 WHERE version <> $1", SchemaVersion())
		return err
	})
	if err != nil {
		return failed(ctx, "migrate the central ledger", err)
	}
	l.migrated.Store(true)
	return nil
}
