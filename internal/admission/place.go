package admission

import (
	"tollgate/internal/alias"
	"tollgate/internal/ledger"
	"tollgate/internal/placement"
	"tollgate/internal/usage"
)

// listed reports whether a name is that of a model.
func (s *Session) listed(name string) bool {
	if s.placing.Engines != nil {
		return s.placing.Engines.Listed(name)
	}
	return s.served(name)
}

// served reports whether a model can be asked for now.
func (s *Session) served(name string) bool {
	_, ok := s.catalog.Model(name)
	return ok
}

// Resolve chooses the model for the name that the client asks for, and remembers it
// for [Session.Reserve]. It is "" when nothing that the name stands for is ready.
func (s *Session) Resolve(asked string) string {
	s.asked, s.choice = asked, s.placing.Aliases.Choose(asked, s.listed, s.served)
	return s.choice.Model
}

// Prompt is what the prompt of the request must be written to before
// [Session.Reserve]; nil where its text decides nothing. Where isolated, no two keys
// share a cache.
func (s *Session) Prompt(isolated bool) *placement.Prompt {
	p := s.placing
	if p.Placer == nil || p.Placer.Policy() != placement.Prefix || p.Engines == nil {
		return nil
	}
	var room [4]placement.Engine
	if len(p.Engines.Serving(s.choice.Model, room[:0])) < 2 {
		return nil
	}
	if isolated {
		return placement.NewPrompt(s.choice.Model, s.key.ID)
	}
	return placement.NewPrompt(s.choice.Model)
}

// Endpoints are the model that serves the request and the engines to try for it, the
// best first; of a request that was reserved. None: the proxy chooses.
func (s *Session) Endpoints() (model string, endpoints []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seat == nil {
		return s.order.Model, nil
	}
	return s.order.Model, s.seat.Endpoints
}

// ServedBy notes which engine answers.
func (s *Session) ServedBy(endpoint string) { s.seated().ServedBy(endpoint) }

func (s *Session) seated() *placement.Seat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seat
}

// name checks the model of an order and puts the served one in its place.
func (s *Session) name(o *Order) (maxLen int64, denied *DenialError) {
	if !s.catalog.Ready() {
		return 0, s.deny(EngineUnavailable)
	}
	if s.asked != o.Model {
		s.Resolve(o.Model)
	}
	o.Requested, o.Model, o.alias = o.Model, s.choice.Model, s.choice.Alias
	if !s.placing.Aliases.Allowed(o.Requested, s.key, s.listed) {
		return 0, s.unknown(o.Requested)
	}
	maxLen, ok := s.catalog.Model(o.Model)
	switch {
	case ok:
		return maxLen, nil
	case s.choice.Alias != "", s.listed(o.Model):
		o.Model = o.Requested
		return 0, s.deny(EngineUnavailable)
	}
	return 0, s.unknown(o.Requested)
}

// unknown refuses a name, and names the nearest that the key may use.
func (s *Session) unknown(asked string) *DenialError {
	d := s.deny(ModelUnknown)
	d.Param, d.Model = "model", asked
	d.Nearest = alias.Nearest(asked, s.placing.Aliases.Offer(s.catalog.Names(), s.key.Models, s.key))
	return d
}

// candidates are the engines that may take an order.
func (s *Session) candidates(o Order, room []placement.Engine) ([]placement.Engine, error) {
	if s.placing.Placer == nil || s.placing.Engines == nil {
		return nil, nil
	}
	list := s.placing.Engines.Serving(o.Model, room)
	if len(list) == 0 {
		return nil, s.deny(EngineUnavailable) // the last of them has just gone
	}
	return list, nil
}

// place takes a seat at one of the engines.
func (s *Session) place(list []placement.Engine, o Order, tokens int64) *placement.Seat {
	if len(list) == 0 {
		o.Prompt.Free()
		return nil
	}
	w := placement.Work{Output: s.expected.Load()}
	w.Prompt = tokens - w.Output
	return s.placing.Placer.Place(list, o.Prompt, w, s.choice.Fallback)
}

// rejoin takes a seat for a request that goes on after a restart, where it is.
func (s *Session) rejoin(row ledger.Record) {
	if s.placing.Placer == nil || row.Engine == "" {
		return
	}
	seat := s.placing.Placer.Rejoin(row.Engine, row.Reserved)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seat = seat
}

// watchSeat tells the engine's load how far the answer is.
func (s *Session) watchSeat(counts usage.Counts) {
	seat := s.seated()
	if seat == nil || s.firstByte.Load() == 0 && counts.Completion <= 0 {
		return
	}
	left := s.expected.Load() - max(0, counts.Completion)
	seat.Started(left)
	seat.Remain(left)
}

// learnSeat tells what a settled row says of the engine's cache.
func (s *Session) learnSeat(rec *ledger.Record) {
	seat := s.seated()
	if seat == nil {
		return
	}
	seat.ServedBy(rec.Engine)
	if rec.FirstByteAt.IsZero() || rec.Counts.Completion <= 0 {
		return // nothing says that the engine has seen the prompt
	}
	seat.Started(0)
	if rec.Quality == ledger.Exact && rec.Prompts <= 1 {
		seat.Cached(rec.Counts.Prompt, rec.Counts.Cached)
	}
}

// stand gives the seat back.
func (s *Session) stand() {
	s.mu.Lock()
	seat := s.seat
	s.seat = nil
	s.mu.Unlock()
	seat.Leave()
}

// modelLabels are the names of a request in metrics: the model, and the alias as the
// operator has written it, or the model again. REQUIRES: mu held.
func (s *Session) modelLabels() (model, requested string) {
	model = s.order.Model
	if !s.listed(model) {
		model = otherModel
	}
	if s.order.alias != "" {
		return model, s.order.alias
	}
	return model, model
}

// otherModel stands for names that clients make up.
const otherModel = "other"
