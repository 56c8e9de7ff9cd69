package gateway

import (
	"context"
	"time"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
)

const (
	// auditTimeout bounds one write of the audit.
	auditTimeout = 5 * time.Second
	// auditRetry is between two tries to write a change that could not be written.
	auditRetry = 2 * time.Second
)

// auditKeys writes what has changed of the keys since it was written last. An edit
// is not undone because the audit cannot be written now: the states that the ledger
// keeps tell the change later, also after a restart.
//
// The states are those of this moment, and one write follows the other: a change
// whose write comes late must not be told as the undoing of a later one.
func (g *Gateway) auditKeys(ctx context.Context, by audit.Editor) bool {
	g.auditing.Lock()
	defer g.auditing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	if _, err := g.ledger.RecordStates(ctx, "key", g.keys.Current().States(), by); err != nil {
		g.log.Error("cannot write the audit of the keys; it is tried again", "error", err)
		return false
	}
	return true
}

// audit hears of changes until ctx ends. What was edited while nobody listened is
// put down to the file.
func (g *Gateway) audit(ctx context.Context) error {
	retry := time.NewTicker(auditRetry)
	defer retry.Stop()
	by := audit.Editor{Who: audit.ByFile}
	owed := !g.auditKeys(ctx, by)
	for {
		select {
		case <-ctx.Done():
			return nil
		case failed := <-g.auditOwed:
			by, owed = failed, true
		case <-retry.C:
			if owed {
				owed = !g.auditKeys(ctx, by)
			}
		}
	}
}

// keysChanged writes the audit of a change before the edit is answered.
func (g *Gateway) keysChanged(_, next *apikey.Ring, by audit.Editor) {
	g.gate.Revoke(next)
	g.replicas.keysChanged()
	if g.auditKeys(context.Background(), by) {
		return
	}
	select {
	case g.auditOwed <- by:
	default: // one is owed already, and tells this change too
	}
}
