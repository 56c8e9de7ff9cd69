package central

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"tollgate/internal/audit"
)

// Forget puts the names in the place of a user and of the ids of the user's keys: in the
// rows and the sums of all gateways, and in the entries of one gateway's audit, which its
// own ledger has changed in the same way. Ids that names does not have get the user's
// pseudonym and a number. Addresses, traces and the beginnings of digests are emptied;
// counts and times stay. It is one transaction.
func (l *Ledger) Forget(ctx context.Context, user string, names map[string]string, id string, entries []audit.Entry) error {
	if err := l.migrate(ctx); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT key_id FROM tollgate.rollups WHERE "user" = $1 UNION SELECT key_id FROM tollgate.requests WHERE "user" = $1`, user)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		var b pgx.Batch
		for i, key := range ids {
			to, ok := names[key]
			if !ok {
				to = fmt.Sprintf("%s-c%d", names[user], i+1)
			}
			b.Queue(`UPDATE tollgate.requests SET "user" = $1, key_id = $2, client_addr = '', trace = '', secret = '' WHERE "user" = $3 AND key_id = $4`, names[user], to, user, key)
			b.Queue(`UPDATE tollgate.rollups SET "user" = $1, key_id = $2 WHERE "user" = $3 AND key_id = $4`, names[user], to, user, key)
		}
		b.Queue("UPDATE tollgate.requests SET end_user = $1 WHERE end_user = $2", names[user], user)
		b.Queue("UPDATE tollgate.rollups SET end_user = $1 WHERE end_user = $2", names[user], user)
		for i := range entries {
			e := &entries[i]
			b.Queue("UPDATE tollgate.audit SET who = $1, origin = $2, target = $3, before = $4, after = $5 WHERE ledger = $6 AND seq = $7",
				storable(e.Who), storable(e.From), storable(e.Target), document(e.Before), document(e.After), id, e.Seq)
		}
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return failed(ctx, "forget", err)
	}
	return nil
}

// redactions are, for each ledger, the entries that later ones vouch for.
func (l *Ledger) redactions(ctx context.Context) (map[string]audit.Redactions, error) {
	rows, err := l.pool.Query(ctx, `SELECT ledger, seq, at, gateway, who, origin, action, target, before, after, prev, hash
		FROM tollgate.audit WHERE action = $1 ORDER BY ledger, seq`, audit.ActionForget)
	if err != nil {
		return nil, failed(ctx, "verify audit", err)
	}
	defer rows.Close()
	out := map[string]audit.Redactions{}
	for rows.Next() {
		var id string
		e, err := scanAudit(rows, &id)
		if err != nil {
			return nil, failed(ctx, "verify audit", err)
		}
		if out[id] == nil {
			out[id] = audit.Redactions{}
		}
		out[id].Add(e.After)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(ctx, "verify audit", err)
	}
	return out, nil
}
