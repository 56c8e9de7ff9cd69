package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"tollgate/internal/audit"
)

// Forgotten counts what is known of a person, or was.
type Forgotten struct {
	Keys     []string `json:"keys"`     // ids that stand in rows and sums
	Requests int64    `json:"requests"` // rows of the person's keys
	Named    int64    `json:"named"`    // rows of other keys that name the person
	Sums     int64    `json:"sums"`
	Audit    int64    `json:"audit"` // entries that name the person or one of the keys

	// Names are what stands in the place of the user and of the keys, and Entries those
	// of the audit that were changed, for copies elsewhere.
	Names   map[string]string `json:"-"`
	Entries []audit.Entry     `json:"-"`
}

// Known counts what the ledger has of a user, whose keys now have these ids, and says
// what would stand in its place.
func (r *Reader) Known(ctx context.Context, user, pseudonym string, keys []string) (Forgotten, error) {
	f := Forgotten{}
	var err error
	if f.Keys, err = r.idsOf(ctx, user, keys); err != nil {
		return f, err
	}
	for _, c := range []struct {
		to    *int64
		query string
	}{
		{&f.Requests, "SELECT count(*) FROM requests WHERE user = ?"},
		{&f.Named, "SELECT count(*) FROM requests WHERE end_user = ? "},
		{&f.Sums, "SELECT count(*) FROM rollups WHERE user = ?"},
	} {
		if err := r.db.QueryRowContext(ctx, c.query, user).Scan(c.to); err != nil {
			return f, failed(ctx, "look for "+user, err)
		}
	}
	f.Names = namesOf(user, f.Keys, pseudonym)
	f.Entries, err = r.redacted(ctx, f.Names)
	f.Audit = int64(len(f.Entries))
	return f, err
}

// idsOf are the ids of a user's keys in rows and sums, and those that are given.
func (r *Reader) idsOf(ctx context.Context, user string, keys []string) (ids []string, err error) {
	seen := map[string]bool{}
	for _, id := range keys {
		seen[id] = true
		ids = append(ids, id)
	}
	rows, err := r.db.QueryContext(ctx, "SELECT DISTINCT key_id FROM rollups WHERE user = ?1 UNION SELECT DISTINCT key_id FROM requests WHERE user = ?1", user)
	if err != nil {
		return nil, failed(ctx, "look for keys", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, failed(ctx, "look for keys", err)
		}
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

// namesOf are all names of a person, and what stands in their place.
func namesOf(user string, ids []string, pseudonym string) map[string]string {
	names := map[string]string{user: pseudonym, "local:" + user: "local:" + pseudonym}
	for i, id := range ids {
		names[id] = pseudonym + "-" + strconv.Itoa(i+1)
	}
	return names
}

// redacted are the entries of the audit that have one of the names, without them.
func (r *Reader) redacted(ctx context.Context, names map[string]string) (changed []audit.Entry, err error) {
	for seq := int64(0); ; {
		entries, err := r.auditEntries(ctx, "seq > ? ORDER BY seq LIMIT ?", seq, page)
		if err != nil {
			return nil, err
		}
		changed = append(changed, audit.Forget(entries, names)...)
		if len(entries) < page {
			return changed, nil
		}
		seq = entries[page-1].Seq
	}
}

// redactions are the entries that later ones vouch for.
func (r *Reader) redactions(ctx context.Context) (audit.Redactions, error) {
	told, err := r.auditEntries(ctx, "action = ? ORDER BY seq LIMIT ?", audit.ActionForget, -1)
	if err != nil {
		return nil, err
	}
	out := audit.Redactions{}
	for i := range told {
		out.Add(told[i].After)
	}
	return out, nil
}

// Forget does what [Reader.Known] has found: it puts pseudonyms in the place of the user
// and of the ids of the keys, in rows, sums and the audit; the user's name goes from rows
// of other keys, too. Addresses, traces and the beginnings of digests of these rows are
// emptied; counts and times stay, so that sums and bills do. The audit gets an entry that
// vouches for the changed ones. What is overwritten is zeroed in the file; when the store
// is closed nothing is left in its log either. Nothing is changed where it fails.
func (s *Store) Forget(ctx context.Context, user string, found *Forgotten, by audit.Editor) error {
	vouched, err := audit.Vouch(found.Entries)
	if err != nil {
		return fmt.Errorf("forget: %w", err)
	}
	told := audit.Entry{Editor: by, Action: audit.ActionForget, Target: found.Names[user], After: vouched}
	return wrap("forget", s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		if err := t.forget(ctx, user, found.Names, found.Keys); err != nil {
			return err
		}
		for i := range found.Entries {
			if err := t.redact(ctx, &found.Entries[i]); err != nil {
				return err
			}
		}
		return t.audit(ctx, s.name, []audit.Entry{told})
	}}))
}

// forget changes rows and sums.
func (t *tx) forget(ctx context.Context, user string, names map[string]string, ids []string) error {
	type statement struct {
		query string
		args  []any
	}
	statements := []statement{{"PRAGMA secure_delete = ON", nil}}
	for _, id := range ids {
		statements = append(statements, []statement{
			{"UPDATE requests SET user = ?1, key_id = ?2, client_addr = '', trace = NULL, secret = NULL WHERE user = ?3 AND key_id = ?4", []any{names[user], names[id], user, id}},
			{"UPDATE rollups SET user = ?1, key_id = ?2 WHERE user = ?3 AND key_id = ?4", []any{names[user], names[id], user, id}},
			// The state of a removed key would be told by the next start.
			{"DELETE FROM audit_states WHERE kind = 'key' AND name = ?", []any{id}},
		}...)
	}
	// The pseudonym is new, so that no two sums become one.
	for _, table := range []string{"requests", "rollups"} {
		statements = append(statements, statement{"UPDATE " + table + " SET end_user = ?1 WHERE end_user = ?2", []any{names[user], user}})
	}
	for _, st := range statements {
		if _, err := t.conn.ExecContext(ctx, st.query, st.args...); err != nil {
			return fmt.Errorf("forget: %w", err)
		}
	}
	return nil
}

// redact writes what an entry says now; its hash stays.
func (t *tx) redact(ctx context.Context, e *audit.Entry) error {
	_, err := t.conn.ExecContext(ctx, "UPDATE audit SET who = ?, origin = ?, target = ?, before = ?, after = ? WHERE seq = ?",
		e.Who, e.From, e.Target, textOrNull(e.Before), textOrNull(e.After), e.Seq)
	if err != nil {
		return fmt.Errorf("forget: %w", err)
	}
	return nil
}
