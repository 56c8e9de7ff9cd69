package limit

import "time"

// Held is how many accounts and how many resting quota books a store holds.
func (m *Memory) Held() (accounts, resting int) {
	now := m.lock()
	defer m.unlock(now)
	return len(m.accounts), m.resting.Len()
}

// Clock is the reading that all instants of a store count from.
func (m *Memory) Clock() time.Time { return m.start }

// Clock is the reading that all instants of a table count from.
func (a *Addresses) Clock() time.Time { return a.start }

// Remembered is how many models and pairs an estimator holds.
func (e *Estimator) Remembered() (models, pairs int) { return e.models.Len(), e.pairs.Len() }

// The bounds that tests look at.
const (
	ModelsKept = modelsKept
	PairsKept  = pairsKept
	QuotasKept = quotasKept
)
