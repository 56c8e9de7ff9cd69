package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tollgate/internal/vllm"
)

// stallCheck finds an engine that hangs: it reports running requests or does not
// answer, and no token counter moves for the timeout. The check sends no request of its
// own, which would cost tokens.
type stallCheck struct {
	engine  *vllm.Client
	timeout time.Duration

	tokens int64     // at the last look
	moved  time.Time // when they last moved or nothing was running; zero: not looked yet
}

// reset starts the timeout anew; call it when an engine has become ready.
func (s *stallCheck) reset() { s.moved = time.Time{} }

// check is nil while the engine moves, is idle, or has not been still for long
// enough.
func (s *stallCheck) check(ctx context.Context) error {
	now := time.Now()
	m, err := s.engine.Metrics(ctx)
	if s.moved.IsZero() {
		s.moved = now
	}
	// An engine without statistics answers, and looks like an idle one.
	if err == nil || errors.Is(err, vllm.ErrNoCounters) {
		tokens := m.Prompt + m.Generation
		if m.Running == 0 || tokens != s.tokens {
			s.moved, s.tokens = now, tokens
			return nil
		}
	}
	if still := now.Sub(s.moved); still >= s.timeout {
		return fmt.Errorf("hung: requests are running and no token has been counted for %s", still.Round(time.Second))
	}
	return nil
}
