package fleet

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"tollgate/internal/openai"
	"tollgate/internal/vllm"
)

const (
	// interval is between two looks at an engine. Envoy's own health check runs at the
	// same pace (envoy.yaml).
	interval = time.Second
	// patience is how long an engine may be silent and still count as ready: its host
	// swaps, or it compiles something. What is sent to it waits. Envoy's health check
	// is as patient.
	patience = 10 * time.Second
)

// member is one engine that is watched.
type member struct {
	fleet  *Fleet
	entry  *entry
	client *vllm.Client
	kick   chan struct{}
	stop   context.CancelFunc
	load   load

	// Guarded by fleet.mu.
	address, endpoint string
	asked             bool // once at least
	ready             bool
	err               string
	models            []openai.Model
	lens              map[string]int64
	heard             time.Time // when it was ready last
	started           float64   // of its process
	restarts          int
	waiters           []chan struct{} // closed after the next look
}

// run looks at the engine until ctx ends.
func (m *member) run(ctx context.Context) {
	t := time.NewTicker(interval)
	defer t.Stop()
	defer m.client.Close()
	defer m.leave()
	for {
		m.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-m.kick:
		}
	}
}

// leave lets go who waits for a look that will not come.
func (m *member) leave() {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	for _, w := range m.waiters {
		close(w)
	}
	m.waiters = nil
}

// look asks the engine once and publishes what has changed.
func (m *member) look(ctx context.Context) {
	f := m.fleet
	f.mu.Lock()
	waiters := m.waiters
	m.waiters = nil
	f.mu.Unlock()
	defer func() {
		for _, w := range waiters {
			close(w)
		}
	}()
	models, counters, err := m.ask(ctx)
	if ctx.Err() != nil {
		return
	}
	m.load.waiting.Store(counters.Waiting)
	m.load.running.Store(counters.Running)
	f.mu.Lock()
	changed := !m.asked
	m.asked = true
	switch {
	case err == nil:
		again := m.began(counters.Started)
		changed = m.answered(models) || again || changed
	case !m.silent(err):
		changed = changed || m.ready || m.err != err.Error()
		m.ready, m.err = false, err.Error()
	}
	if changed {
		f.publish()
	}
	f.mu.Unlock()
	if changed {
		f.announce()
	}
}

// began counts a new start of the engine's process; the caller holds the lock.
func (m *member) began(started float64) (again bool) {
	if started == 0 {
		return false
	}
	again = m.started != 0 && m.started != started
	if again {
		m.restarts++
	}
	m.started = started
	return again
}

// answered takes what the engine said; the caller holds the lock.
func (m *member) answered(models []openai.Model) (changed bool) {
	lens := make(map[string]int64, len(models))
	for _, model := range models {
		lens[model.ID] = model.MaxLen
	}
	// An adapter has its base model's context (vLLM lists null for it).
	for _, model := range models {
		if lens[model.ID] == 0 {
			lens[model.ID] = lens[model.Parent]
		}
	}
	m.heard = time.Now()
	if m.ready && slices.EqualFunc(m.models, models, same) {
		return false
	}
	m.ready, m.err, m.models, m.lens = true, "", models, lens
	return true
}

// same compares two entries of a list, but for the time that vLLM writes into each.
func same(a, b openai.Model) bool {
	return a.ID == b.ID && a.Parent == b.Parent && a.MaxLen == b.MaxLen
}

// silent says whether an engine that was ready has only not answered yet. One that
// refuses, answers something else or cannot be reached is not silent. The caller
// holds the lock.
func (m *member) silent(err error) bool {
	var timeout interface{ Timeout() bool }
	var dial *net.OpError
	if !errors.As(err, &timeout) || !timeout.Timeout() || errors.As(err, &dial) && dial.Op == "dial" {
		return false
	}
	return m.ready && time.Since(m.heard) < patience
}

// ask is ready when /health says so and the list can be read. An engine without
// counters is used all the same: its load is then what the gateway itself has sent.
func (m *member) ask(ctx context.Context) ([]openai.Model, vllm.Metrics, error) {
	if err := m.client.Health(ctx); err != nil {
		return nil, vllm.Metrics{}, err
	}
	models, err := m.client.Models(ctx)
	if err != nil {
		return nil, vllm.Metrics{}, err
	}
	counters, err := m.client.Metrics(ctx)
	if err != nil {
		return models, vllm.Metrics{}, nil //nolint:nilerr // as the comment above says
	}
	return models, counters, nil
}

// lookNow asks for a look and closes done after it; the caller holds the lock.
func (m *member) lookNow(done chan struct{}) {
	m.waiters = append(m.waiters, done)
	select {
	case m.kick <- struct{}{}:
	default: // a look is asked for already
	}
}

// engine is the member as requests see it; the caller holds the lock.
func (m *member) engine() *Engine {
	e := &Engine{
		Address: m.address, Endpoint: m.endpoint, Weight: m.entry.Weight, Ready: m.ready, Draining: m.entry.draining,
		Models: m.models, Error: m.err, Restarts: m.restarts,
		Named: m.entry.Entry, lens: m.lens, load: &m.load,
	}
	if !m.asked {
		e.Error = "not asked yet"
	}
	return e
}
