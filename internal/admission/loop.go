package admission

import (
	"context"
	"sync"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/request"
)

// checkpointEvery is the longest that running use stays unwritten.
const checkpointEvery = 250 * time.Millisecond

// Run renews leases, writes running use, retries what could not be written, and
// ends what waits in vain, until ctx ends. A last round is done then.
func (g *Gate) Run(ctx context.Context) error {
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewer sync.WaitGroup
	renewer.Go(func() { g.renew(renewing) })
	defer renewer.Wait()
	defer stop()
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
			defer cancel()
			g.checkpoint(last)
			g.waive(last)
			g.retry(last)
			g.giveUp(last)
			g.pass()
			return nil
		case <-g.flush:
			g.checkpoint(ctx)
		case <-t.C:
			g.checkpoint(ctx)
			g.retry(ctx)
			g.sweep(ctx)
			g.sessions.expire()
			g.pass()
			if g.attribution.due() {
				go g.attribution.read(ctx) // an engine that hangs must not hold up the rest
			}
		}
	}
}

// renew keeps the leases of all live requests until ctx ends. It runs beside the
// writes: a ledger that hangs must not let them expire.
func (g *Gate) renew(ctx context.Context) {
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		var leases []string
		for _, s := range g.sessions.all() {
			if s.standsAt().Running() {
				leases = append(leases, s.facts.LeaseID)
			}
		}
		if len(leases) == 0 {
			continue
		}
		if err := g.limits.Renew(ctx, leases); err != nil {
			g.log.Debug("cannot renew leases", "error", err)
		}
	}
}

// pass keeps what the next gate must know, where that has changed.
func (g *Gate) pass() {
	if g.remember == nil {
		return
	}
	if b := g.attribution.remember(); b != nil {
		if err := g.remember(b); err != nil {
			g.log.Debug("cannot keep what the engines have made", "error", err)
		}
	}
}

// checkpoint writes the running counts of all live requests in one batch.
func (g *Gate) checkpoint(ctx context.Context) {
	var spends []limit.Spend
	var points []ledger.Checkpoint
	for _, s := range g.sessions.all() {
		counts := s.counts()
		s.watchSeat(counts)
		used := counts.Prompt + counts.Completion
		if used == s.written.Load() || !s.standsAt().Running() {
			continue
		}
		s.written.Store(used)
		s.flushed.Store(counts.Completion)
		spends = append(spends, limit.Spend{LeaseID: s.facts.LeaseID, Total: used, QuotaPeriod: s.facts.Caps.QuotaPeriod})
		points = append(points, ledger.Checkpoint{LeaseID: s.facts.LeaseID, Counts: counts})
	}
	if len(points) == 0 {
		return
	}
	// A checkpoint that fails is made up for by the next one or by the
	// settlement, which cannot be skipped: nothing is lost, so nothing is cut.
	if err := g.limits.Spend(ctx, spends); err != nil {
		g.log.Debug("cannot debit running use", "error", err)
	}
	if err := g.ledger.Checkpoint(ctx, points); err != nil {
		g.log.Warn("cannot write checkpoints", "error", err)
	}
}

// patience is how long a request waits for something.
func patience(w request.Wait) time.Duration {
	if w == request.WaitClaim {
		return limit.ProvisionalLife
	}
	return grace
}

// sweep ends what waits in vain, see [request.State.Awaits], and cuts the requests
// whose secret has expired.
func (g *Gate) sweep(ctx context.Context) {
	wall := g.wall()
	for _, s := range g.sessions.all() {
		s.mu.Lock()
		awaits := s.state.Awaits()
		vain := awaits != request.WaitNothing && time.Since(s.waiting) > patience(awaits)
		expired := !s.until.IsZero() && !wall.Before(s.until) && s.cutReason == ""
		s.mu.Unlock()
		switch {
		case vain:
			s.waitedInVain(ctx)
		case expired:
			s.cut(ctx, ledger.Revoked)
		}
	}
}

// waitedInVain lets the request go on without what it waits for. When that came
// meanwhile, nothing happens.
func (s *Session) waitedInVain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_ = s.happen(ctx, request.OnExpired, func() { s.refund = s.refund || !s.claimed }) // what is owed is retried
}

// waive ends the wait for log entries: none comes any more. All at once, so that a
// ledger that hangs costs one timeout and not one for each.
func (g *Gate) waive(ctx context.Context) {
	var group sync.WaitGroup
	for _, s := range g.sessions.all() {
		if s.standsAt().Awaits() == request.WaitEntry {
			group.Go(func() { s.waitedInVain(ctx) })
		}
	}
	group.Wait()
}

// retry writes what the ledger refused before, until it refuses again. What it
// refuses again goes to the end, so that one row that is never taken holds up no
// other.
func (g *Gate) retry(ctx context.Context) {
	for range g.debts.len() {
		s := g.debts.take()
		if s == nil || s.retry(ctx) != nil {
			return
		}
	}
}

// retry writes what the session owes.
func (s *Session) retry(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	return s.happen(ctx, request.OnRetry, nil)
}

// giveUp writes the access records of what is owed still: nothing will be
// written any more, and the log must not lose it too.
func (g *Gate) giveUp(ctx context.Context) {
	for s := g.debts.take(); s != nil; s = g.debts.take() {
		_ = s.happen(ctx, request.OnGivenUp, nil) // a stream that is still there has the last word
	}
}
