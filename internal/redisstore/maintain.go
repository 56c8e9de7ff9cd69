package redisstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// probeTimeout bounds one probe, connecting included.
	probeTimeout = 2 * time.Second
	// sweepInterval is how often what is too old is dropped from the journal.
	sweepInterval = 30 * time.Second
)

// maintainer keeps the way to Redis: it says that this replica is there, notices
// when Redis is not, probes it then and brings back what was decided meanwhile.
type maintainer struct {
	conn    *conn
	journal *journal
	circuit *circuit
	peers   *peers
	metrics *Metrics
	log     hclog.Logger
	replica string        // name of this one
	timeout time.Duration // of one call
	renew   time.Duration // between two renewals of a lease

	// deciding is held for reading by every decision made here and for writing
	// during the handover, so that Redis is told all of them.
	deciding sync.RWMutex

	wake    chan struct{}
	ended   chan struct{} // closed when run has ended
	unacked *batch        // sent, and no answer seen; owned by run
	swept   time.Time     // owned by run
}

// run works until ctx ends.
func (m *maintainer) run(ctx context.Context) {
	defer close(m.ended)
	timer := time.NewTimer(heartbeatInterval)
	defer timer.Stop()
	m.swept = time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			if pause := m.circuit.beforeProbe(); pause > 0 {
				timer.Reset(pause)
				continue
			}
		case <-timer.C:
		}
		timer.Reset(m.round(ctx))
	}
}

// round does what there is to do and returns how long to wait afterwards.
func (m *maintainer) round(ctx context.Context) time.Duration {
	if time.Since(m.swept) >= sweepInterval {
		m.swept = time.Now()
		m.journal.sweep()
	}
	if m.circuit.decidesHere() && !m.rejoin(ctx) {
		return probeInterval
	}
	if err := m.heartbeat(ctx); err != nil && ctx.Err() == nil {
		m.failed(err)
	}
	return heartbeatInterval
}

// signal makes run look at once what there is to do.
func (m *maintainer) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// on moves the circuit and reports whether its state changed.
func (m *maintainer) on(e event) bool {
	changed, err := m.circuit.on(e, time.Now())
	if err != nil {
		m.log.Error("redis store: please report this", "error", err)
	}
	return changed
}

// failed begins an outage after a call that Redis did not answer as it should.
func (m *maintainer) failed(err error) {
	if !m.on(callFailed) {
		return
	}
	m.metrics.partitioned.Set(1)
	m.log.Warn("redis unreachable, enforcing this replica's share of each limit", "replicas", m.peers.count(), "error", err)
	m.signal()
}

// rejoin ends an outage if Redis is there again, and reports whether it did. What
// was decided here is sent while more is decided; then decisions wait, for one
// call's budget at most, until the rest is sent. So the first shared decision
// knows all of it.
func (m *maintainer) rejoin(ctx context.Context) bool {
	within, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if m.probe(within) != nil {
		m.on(probeFailed)
		return false
	}
	m.on(probeAnswered)
	m.journal.resendStale(m.renew)
	if m.push(within) != nil {
		m.on(sendFailed)
		return false
	}
	if _, answering := m.circuit.outage(time.Now()); !m.peers.back(answering) {
		return false
	}
	m.deciding.Lock()
	defer m.deciding.Unlock()
	m.on(peersBack)
	last, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	if m.push(last) != nil {
		m.on(sendFailed)
		return false
	}
	if m.on(sentAll) {
		lasted, _ := m.circuit.outage(time.Now())
		m.metrics.partitioned.Set(0)
		m.log.Info("redis is back, limits are shared again", "duration", lasted.Round(time.Millisecond))
	}
	return true
}

// probe finds out whether Redis is in working order: it takes the scripts and
// answers one within the budget of a call.
func (m *maintainer) probe(ctx context.Context) error {
	if err := m.conn.load(ctx); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	_, err := m.register(within, "", fmt.Sprintf("%s-%d", m.replica, time.Now().UnixNano()))
	return err
}

// heartbeat says that this replica is there and sends what is pending.
func (m *maintainer) heartbeat(ctx context.Context) error {
	for more := true; more; {
		within, cancel := context.WithTimeout(ctx, m.timeout)
		var err error
		more, err = m.register(within, *m.conn.epoch.Load(), "")
		cancel()
		if err != nil {
			return err
		}
	}
	within, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return m.push(within)
}

// register runs heartbeat.lua and reports whether dead leases are left to remove.
// An empty epoch takes the one that Redis has, or gives it the proposed one.
func (m *maintainer) register(ctx context.Context, epoch, proposed string) (more bool, err error) {
	r, err := m.conn.callIn(ctx, epoch, m.conn.scripts.heartbeat, m.replica, proposed)
	if err != nil {
		return false, err
	}
	if r.verdict != "ok" || len(r.values) != 3 {
		return false, unexpected(r.verdict)
	}
	found, err := r.values[0].ToString()
	if err != nil || found == "" {
		return false, unexpected(r.verdict)
	}
	replicas, err := r.integer(1)
	if err != nil {
		return false, err
	}
	left, err := r.integer(2)
	if err != nil {
		return false, err
	}
	m.peers.report(replicas, m.circuit.decidesHere(), time.Now())
	if known := m.conn.epoch.Load(); known == nil || *known != found {
		if known != nil {
			m.unacked = nil
			m.journal.redisLost()
		}
		m.conn.epoch.Store(&found)
	}
	return left != 0, nil
}

// push tells Redis all that was pending when it began. Only run calls it.
func (m *maintainer) push(ctx context.Context) error {
	for more := true; more; {
		b, again := m.unacked, m.unacked != nil
		if !again {
			if b = m.journal.pending(); b.empty() {
				return nil
			}
			b.mark = m.conn.mark()
			m.unacked = b
		}
		if err := m.send(ctx, b); err != nil {
			return err
		}
		m.unacked = nil
		more = again || b.full()
	}
	return nil
}

func (m *maintainer) send(ctx context.Context, b *batch) error {
	doc, err := b.document(time.Now(), m.journal.use.start)
	if err != nil {
		return err
	}
	r, err := m.conn.call(ctx, m.conn.scripts.join, doc, m.replica, b.mark)
	if err != nil {
		return err
	}
	if r.verdict != "ok" {
		return unexpected(r.verdict)
	}
	used, err := r.integers(len(b.quotas))
	if err != nil {
		return err
	}
	m.journal.confirm(b, used)
	return nil
}
