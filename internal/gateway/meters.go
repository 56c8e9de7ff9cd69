package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/envoycode"
	"tollgate/internal/ledger"
	"tollgate/internal/meterlink"
	"tollgate/internal/usage"
)

const (
	// listWait is how long a start waits for the streams that run already, so that
	// the limits know of them before the first request is decided.
	listWait = 500 * time.Millisecond
	// sinkTimeout bounds what a word of a meter costs beside its records.
	sinkTimeout = 5 * time.Second
	// askTimeout bounds a question for more quota: the stream goes on without an
	// answer after this.
	askTimeout = 200 * time.Millisecond
)

// meters is what the words of the meters inside Envoys mean for requests: which go
// on, which have ended and how, and which died with their Envoy.
type meters struct {
	link   *meterlink.Server
	gate   *admission.Gate
	ledger ledger.Store
	spans  *spans // nil: nothing is traced
	log    hclog.Logger

	mu sync.Mutex
	// left are the leases of rows that were open at our start, by the instance that
	// metered them; each is gone when its meter has spoken, or is gone itself. Guarded by mu.
	left map[string]map[string]struct{}
}

// newMeters makes the link; open are the rows that were open at our start.
func newMeters(dir string, open []ledger.Record, own prometheus.Registerer, log hclog.Logger) *meters {
	m := &meters{log: log, left: map[string]map[string]struct{}{}}
	var expected []string
	for i := range open {
		name := open[i].Meter
		if name == "" {
			continue
		}
		if m.left[name] == nil {
			m.left[name] = map[string]struct{}{}
			expected = append(expected, name)
		}
		m.left[name][open[i].LeaseID] = struct{}{}
	}
	m.link = meterlink.New(meterlink.Options{
		Sink: m, Dir: dir, Expected: expected, Metrics: meterlink.NewMetrics(own), Log: log,
	})
	return m
}

// serve makes m the sink of requests that the gate and the ledger know.
func (m *meters) serve(gate *admission.Gate, store ledger.Store) { m.gate, m.ledger = gate, store }

// Live implements [meterlink.Sink]: counts of requests that are live here, and
// requests that outlived the process which admitted them.
func (m *meters) Live(instance string, counts []meterlink.Count) {
	for _, c := range counts {
		if !m.gate.Progress(c.Lease, c.Prompt, c.Completion) && m.attach(instance, c.Lease) {
			m.gate.Progress(c.Lease, c.Prompt, c.Completion)
		}
	}
}

// attach makes a request live here whose row is open; false where there is none, or
// it is another's.
func (m *meters) attach(instance, lease string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), sinkTimeout)
	defer cancel()
	row, err := m.ledger.Get(ctx, lease)
	switch {
	case errors.Is(err, ledger.ErrUnknown), err == nil && (!row.Open() || row.Meter != instance):
		return false
	case err == nil:
		err = m.gate.Attach(ctx, row, func() { m.link.Cut(instance, lease) })
	}
	if err != nil {
		m.log.Warn("cannot take over a request that runs", "lease_id", lease, "error", err)
	}
	return err == nil
}

// Ended implements [meterlink.Sink].
func (m *meters) Ended(ctx context.Context, r meterlink.Record) error {
	if r.Why == meterlink.Unplanned {
		return m.gate.MeterGone(ctx, r.Lease)
	}
	return m.gate.Ended(ctx, r.Lease, outcomeOf(&r))
}

// outcomeOf is what a record says of an end, in the ledger's words.
func outcomeOf(r *meterlink.Record) admission.Outcome {
	o := admission.Outcome{
		Reason: reasonOf(r), Status: r.Status, Engine: r.Engine, Report: r.Report,
		Unreadable: r.Why == meterlink.Unreadable, FirstByte: max(0, r.First), Lasted: max(0, r.Last),
	}
	if r.Encoded || r.Unread {
		o.Unread = r.Delivered
	}
	return o
}

// reasonOf names an end. Where the stream was torn down it is Envoy that says by whom.
func reasonOf(r *meterlink.Record) ledger.EndReason {
	switch r.Why {
	case meterlink.Ended:
		return endingOf(r)
	case meterlink.Refused, meterlink.Unreadable:
		return ledger.Refused
	case meterlink.Quota:
		return ledger.Quota
	case meterlink.Local:
		if reason := envoycode.Cause(r.Details, false, r.Status).EndReason(); reason != "" {
			return reason
		}
		return ledger.Refused
	case meterlink.Gone:
		reason := envoycode.Cause(r.Details, false, r.Status).EndReason()
		if reason == ledger.ClientAbort || reason == ledger.UpstreamAbort || reason == ledger.Timeout {
			return reason
		}
	case meterlink.Cut, meterlink.Panic, meterlink.Unplanned:
	}
	return ledger.Aborted
}

// endingOf is what the answer's own bytes say of its end.
func endingOf(r *meterlink.Record) ledger.EndReason {
	switch r.Report.End {
	case usage.Done:
		return ledger.Complete
	case usage.EngineAborted:
		return ledger.EngineAbort
	case usage.Failed:
		return ledger.UpstreamError
	case usage.Open:
	}
	return ledger.UpstreamAbort // the engine has ended its body without an end
}

// Asked implements [meterlink.Sink].
func (m *meters) Asked(instance, lease string, used int64) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		total, err := m.gate.Extend(ctx, lease, used)
		if errors.Is(err, admission.ErrTicket) && m.attach(instance, lease) {
			total, err = m.gate.Extend(ctx, lease, used)
		}
		if err != nil {
			m.log.Warn("cannot tell what is left of a quota, the stream goes on", "lease_id", lease, "error", err)
			return
		}
		m.link.Extend(instance, lease, total, used)
	}()
}

// Listed implements [meterlink.Sink]: what was open at our start and has no meter any
// more died with the process before us.
func (m *meters) Listed(instance string, spoken map[string]struct{}) {
	m.recover(instance, ledger.GatewayCrash, func(lease string) bool {
		_, known := spoken[lease]
		return !known
	})
}

// Gone implements [meterlink.Sink].
func (m *meters) Gone(instance string) {
	ctx, cancel := context.WithTimeout(context.Background(), sinkTimeout)
	defer cancel()
	if n := m.gate.InstanceGone(ctx, instance); n > 0 {
		m.log.Warn("ended requests whose Envoy has died", "instance", instance, "requests", n)
	}
	m.recover(instance, ledger.EnvoyCrash, func(string) bool { return true })
}

// recover ends rows that were open at our start and of which nothing more will be
// heard. The others of the instance are the gate's by now.
func (m *meters) recover(instance string, reason ledger.EndReason, lost func(lease string) bool) {
	m.mu.Lock()
	var leases []string
	for lease := range m.left[instance] {
		if lost(lease) {
			leases = append(leases, lease)
		}
	}
	delete(m.left, instance)
	m.mu.Unlock()
	if len(leases) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), sinkTimeout)
	defer cancel()
	at := time.Now()
	n, err := m.ledger.Recover(ctx, leases, reason, at)
	if err != nil {
		m.log.Error("cannot end requests that a crash had left open", "error", err)
	}
	m.spans.ended(ctx, m.ledger, leases, at)
	if n > 0 {
		m.log.Warn("ended requests that a crash had left open", "requests", n)
	}
}
