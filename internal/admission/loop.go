package admission

import (
	"context"
	"sync"
	"time"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// beat is the longest that running use stays unwritten.
const beat = 250 * time.Millisecond

// Run renews leases, writes running use, retries what could not be written, and sweeps what
// nobody claimed or closed, until ctx ends. A last round is done then.
func (g *Gate) Run(ctx context.Context) error {
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewer sync.WaitGroup
	renewer.Go(func() { g.renew(renewing) })
	defer renewer.Wait()
	defer stop()
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
			defer cancel()
			g.checkpoint(last)
			g.finishClosed(last)
			g.retryPending(last)
			g.giveUp()
			return nil
		case <-g.flush:
			g.checkpoint(ctx)
		case <-t.C:
			g.checkpoint(ctx)
			g.retryPending(ctx)
			g.sweep(ctx)
			g.forgetAlone()
			if g.unseen.busy() {
				go g.unseen.look(ctx) // an engine that hangs must not hold up the rest
			}
		}
	}
}

// renew keeps the leases of all live streams until ctx ends. It is apart from what
// is written: a ledger that hangs must not let them expire.
func (g *Gate) renew(ctx context.Context) {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		var leases []string
		for _, s := range g.all() {
			if s.running() {
				leases = append(leases, s.leaseID)
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

// checkpoint writes the running counts of all live streams in one batch.
func (g *Gate) checkpoint(ctx context.Context) {
	var spends []limit.Spend
	var points []ledger.Checkpoint
	for _, s := range g.all() {
		if !s.running() {
			continue
		}
		prompt, completion := s.prompt.Load(), s.completion.Load()
		if prompt+completion == s.written.Load() {
			continue
		}
		s.written.Store(prompt + completion)
		s.flushed.Store(completion)
		spends = append(spends, limit.Spend{
			LeaseID: s.leaseID, Total: prompt + completion, QuotaPeriod: s.caps.QuotaPeriod,
		})
		points = append(points, ledger.Checkpoint{LeaseID: s.leaseID, Counts: usage.Counts{
			Prompt: prompt, Completion: completion, Cached: usage.Unsaid, Reasoning: usage.Unsaid,
		}})
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

func (g *Gate) all() []*Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*Session, 0, len(g.sessions))
	for _, s := range g.sessions {
		out = append(out, s)
	}
	return out
}

func (s *Session) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stage == live && !s.released
}

// sweep gives back tickets that nobody claimed, cuts streams that the proxy
// has ended long ago or whose secret has expired, and finishes what waits for a log entry in vain.
func (g *Gate) sweep(ctx context.Context) {
	wall := g.wall()
	for _, s := range g.all() {
		s.mu.Lock()
		unclaimed := s.stage == provisional && time.Since(s.issued) > limit.ProvisionalLife
		hung := s.stage == live && s.witness != nil && time.Since(s.witnessAt) > grace
		alone := s.stage == closed && time.Since(s.closedAt) > grace
		expired := s.stage != closed && !s.until.IsZero() && !wall.Before(s.until)
		if unclaimed {
			s.stage, s.closedAt = closed, time.Now()
		}
		s.mu.Unlock()
		switch {
		case unclaimed:
			s.release(ctx, limit.Final{GiveBackRequest: true})
		case hung:
			s.cut("")
		case expired:
			s.cut(ledger.Revoked)
		case alone:
			s.finish(ctx)
		}
	}
}

// finishClosed finishes what waits for its log entry: none comes any more. All at
// once, so that a ledger that hangs costs one timeout and not one for each.
func (g *Gate) finishClosed(ctx context.Context) {
	var group sync.WaitGroup
	for _, s := range g.all() {
		if s.awaited() {
			group.Go(func() { s.finish(ctx) })
		}
	}
	group.Wait()
}

// awaited reports whether the stream has ended and its log entry has not come.
func (s *Session) awaited() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stage == closed && !s.finished
}

// Awaited is how many requests have ended and wait for their log entry.
func (g *Gate) Awaited() int {
	n := 0
	for _, s := range g.all() {
		if s.awaited() {
			n++
		}
	}
	return n
}

// cut ends a stream from outside, a ticket as soon as it is claimed. An empty
// reason leaves the naming to the witnesses. It reports whether the request was
// still open.
func (s *Session) cut(reason ledger.EndReason) bool {
	s.mu.Lock()
	open := s.stage != closed && !s.settling
	if open && s.cutReason == "" {
		s.cutReason = reason
	}
	fn := s.onCut
	s.onCut = nil
	s.mu.Unlock()
	if fn != nil {
		fn()
	}
	return open
}

// Cancel cuts the live requests that carry the request id and returns how many
// there were; what they used is settled as [ledger.Cancelled].
func (g *Gate) Cancel(requestID string) int {
	n := 0
	for _, s := range g.all() {
		if s.arrival.RequestID == requestID && s.cut(ledger.Cancelled) {
			n++
		}
	}
	return n
}

// Revoke cuts the live requests whose secret no longer opens their key in ring:
// see [apikey.Ring.Holds]. What expires later is cut by [Gate.Run].
func (g *Gate) Revoke(ring *apikey.Ring) {
	for _, s := range g.all() {
		if !s.heldBy(ring) {
			s.cut(ledger.Revoked)
		}
	}
}

// heldBy tells whether the ring lets the request go on, and notes until when.
func (s *Session) heldBy(ring *apikey.Ring) bool {
	until, ok := ring.Holds(s.key.ID, s.secret, s.gate.wall())
	s.mu.Lock()
	s.until = until
	s.mu.Unlock()
	return ok
}

// Drain refuses every new arrival from now on.
func (g *Gate) Drain() {
	g.mu.Lock()
	g.draining = true
	g.mu.Unlock()
}

// CutAll cuts every live request as [ledger.Drained].
func (g *Gate) CutAll() {
	for _, s := range g.all() {
		s.cut(ledger.Drained)
	}
}

// Running is one live request.
type Running struct {
	LeaseID          string    `json:"lease_id"`
	RequestID        string    `json:"request_id"`
	KeyID            string    `json:"key_id"`
	User             string    `json:"user"`
	Model            string    `json:"model"`
	Endpoint         string    `json:"endpoint"`
	StartedAt        time.Time `json:"started_at"`
	PromptTokens     int64     `json:"prompt_tokens"`
	CompletionTokens int64     `json:"completion_tokens"`
}

// Live lists the requests that hold a lease, in no order.
func (g *Gate) Live() []Running {
	out := []Running{}
	for _, s := range g.all() {
		if !s.running() {
			continue
		}
		s.mu.Lock()
		model := s.order.Model
		s.mu.Unlock()
		out = append(out, Running{
			LeaseID: s.leaseID, RequestID: s.arrival.RequestID, KeyID: s.key.ID, User: s.key.User, Model: model,
			Endpoint: s.arrival.Endpoint, StartedAt: s.wallStart.UTC(),
			PromptTokens: s.prompt.Load(), CompletionTokens: s.completion.Load(),
		})
	}
	return out
}
