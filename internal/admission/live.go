package admission

import (
	"time"

	"tollgate/internal/request"
)

// Running is one live request.
type Running struct {
	LeaseID          string    `json:"lease_id"`
	RequestID        string    `json:"request_id"`
	KeyID            string    `json:"key_id"`
	User             string    `json:"user"`
	EndUser          string    `json:"end_user,omitempty"` // the person behind a shared key
	Model            string    `json:"model"`
	Endpoint         string    `json:"endpoint"`
	StartedAt        time.Time `json:"started_at"`
	PromptTokens     int64     `json:"prompt_tokens"`
	CompletionTokens int64     `json:"completion_tokens"`
}

// Live lists the requests that hold a lease, in no order.
func (g *Gate) Live() []Running {
	out := []Running{}
	for _, s := range g.sessions.all() {
		s.mu.Lock()
		running, model := s.state.Running(), s.order.Model
		s.mu.Unlock()
		if !running {
			continue
		}
		out = append(out, Running{
			LeaseID: s.facts.LeaseID, RequestID: s.facts.RequestID, KeyID: s.key.ID, User: s.key.User, EndUser: s.facts.EndUser, Model: model,
			Endpoint: s.facts.Endpoint, StartedAt: s.facts.Started.UTC(),
			PromptTokens: s.prompt.Load(), CompletionTokens: s.completion.Load(),
		})
	}
	return out
}

// HandedOver is how many live requests the meters inside Envoys hold.
func (g *Gate) HandedOver() int {
	n := 0
	for _, s := range g.sessions.all() {
		if s.standsAt().Stage == request.Handed {
			n++
		}
	}
	return n
}

// Awaited is how many requests have ended and wait for their log entry.
func (g *Gate) Awaited() int {
	n := 0
	for _, s := range g.sessions.all() {
		if s.standsAt().Awaits() == request.WaitEntry {
			n++
		}
	}
	return n
}

// Pending is the number of settlements that wait for the ledger.
func (g *Gate) Pending() int { return g.debts.len() }
