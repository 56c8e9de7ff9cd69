package central

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/internal/audit"
	"tollgate/internal/ledger"
)

// auditRows is the most entries of the audit in one statement.
const auditRows = 500

// PutAudit stores entries of one ledger's audit, each once: the chain of a
// gateway is what its ledger file says.
func (l *Ledger) PutAudit(ctx context.Context, id string, entries []audit.Entry) error {
	if err := l.migrate(ctx); err != nil {
		return err
	}
	var b pgx.Batch
	for i := range entries {
		e := &entries[i]
		b.Queue(`INSERT INTO tollgate.audit (ledger, seq, at, gateway, who, origin, action, target, before, after, prev, hash)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING`,
			id, e.Seq, e.At, storable(e.Gateway), storable(e.Who), storable(e.From), storable(e.Action), storable(e.Target),
			document(e.Before), document(e.After), e.Prev, e.Hash)
	}
	if err := l.pool.SendBatch(ctx, &b).Close(); err != nil {
		return failed(ctx, "store audit", err)
	}
	return nil
}

// document is JSON as text, so that it stays what was hashed to the byte; nil
// where there is none.
func document(raw json.RawMessage) *string {
	if raw == nil {
		return nil
	}
	text := string(raw)
	return &text
}

// lastAudit is the number of the last entry of a ledger's audit that is stored.
func (l *Ledger) lastAudit(ctx context.Context, id string) (seq int64, err error) {
	if err := l.pool.QueryRow(ctx, "SELECT coalesce(max(seq), 0) FROM tollgate.audit WHERE ledger = $1", id).Scan(&seq); err != nil {
		return 0, failed(ctx, "read position of the audit", err)
	}
	return seq, nil
}

// VerifyAudit follows the chain of every gateway and returns where one does not
// hold, and how many entries it has read.
func (l *Ledger) VerifyAudit(ctx context.Context) (found []ledger.Violation, entries int64, err error) {
	if err := l.migrate(ctx); err != nil {
		return nil, 0, err
	}
	redacted, err := l.redactions(ctx)
	if err != nil {
		return nil, 0, err
	}
	rows, err := l.pool.Query(ctx, `SELECT ledger, seq, at, gateway, who, origin, action, target, before, after, prev, hash
		FROM tollgate.audit ORDER BY ledger, seq`)
	if err != nil {
		return nil, 0, failed(ctx, "verify audit", err)
	}
	defer rows.Close()
	chains, broken := map[string]*audit.Chain{}, map[string]bool{}
	for rows.Next() {
		var id string
		e, err := scanAudit(rows, &id)
		if err != nil {
			return nil, 0, failed(ctx, "verify audit", err)
		}
		entries++
		if chains[id] == nil {
			chains[id] = &audit.Chain{Redacted: redacted[id]}
		}
		if broken[id] {
			continue // one gap breaks all that follow
		}
		if err := chains[id].Check(&e); err != nil {
			broken[id] = true
			found = append(found, ledger.Violation{Rule: ledger.RuleAudit, Detail: fmt.Sprintf("gateway %s, entry %d: %v", e.Gateway, e.Seq, err)})
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, failed(ctx, "verify audit", err)
	}
	return found, entries, nil
}

func scanAudit(rows pgx.Rows, id *string) (e audit.Entry, err error) {
	var at time.Time
	var before, after *string
	if err := rows.Scan(id, &e.Seq, &at, &e.Gateway, &e.Who, &e.From, &e.Action, &e.Target, &before, &after, &e.Prev, &e.Hash); err != nil {
		return e, err
	}
	e.At = at.UTC()
	if before != nil {
		e.Before = json.RawMessage(*before)
	}
	if after != nil {
		e.After = json.RawMessage(*after)
	}
	return e, nil
}

// shipAudit carries the entries that the central ledger does not have, from the
// last one on that it has.
func (s *Shipper) shipAudit(ctx context.Context, id string) error {
	if s.audited < 0 {
		last, err := s.to.lastAudit(ctx, id)
		if err != nil {
			return err
		}
		s.audited = last
	}
	for {
		entries, err := s.from.AuditAfter(ctx, s.audited, auditRows)
		if err != nil || len(entries) == 0 {
			return err
		}
		if err := s.to.PutAudit(ctx, id, entries); err != nil {
			return err
		}
		s.audited = entries[len(entries)-1].Seq
	}
}
