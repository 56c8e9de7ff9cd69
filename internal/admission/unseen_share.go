package admission

import "time"

// shareOf is a maker's part of a span: what others explain is theirs, and the
// rest is divided by the time that each was running. Engines serve who came
// first, so that what is not running yet are the youngest; what runs there and is
// not known here has its part too. REQUIRES: mu held.
func (u *unseen) shareOf(m *maker, sp *span) float64 {
	rest, weights, own := float64(sp.grown), 0.0, 0.0
	place := int64(0)
	for _, o := range u.makers {
		during := overlap(o.begun, o.end(sp.to), sp)
		if during <= 0 {
			continue
		}
		if o.tokens >= 0 {
			if life := o.ended.Sub(o.begun).Seconds(); life > 0 {
				rest -= float64(o.tokens) * during / life
			}
			continue
		}
		// Who came and went between two looks was in no sight of the engine.
		if sp.running >= 0 && (o.there(sp.from) || o.there(sp.to)) {
			place += o.choices
			if place-o.choices >= sp.running {
				continue // it waits
			}
		}
		weights += during * float64(o.choices)
		if o == m {
			own = during * float64(o.choices)
		}
	}
	weights += float64(sp.foreign) * sp.to.Sub(sp.from).Seconds()
	if weights <= 0 || rest <= 0 {
		return 0
	}
	return rest * own / weights
}

// there tells that the engine knew of it, running or in its queue.
func (m *maker) there(at time.Time) bool {
	exit := m.exit()
	return at.Sub(m.begun) >= noticed && (exit.IsZero() || exit.After(at))
}

// exit is when the engine had no more to do with it; zero before.
func (m *maker) exit() time.Time {
	if m.gone.IsZero() {
		return m.ended
	}
	return m.gone
}

func (m *maker) end(otherwise time.Time) time.Time {
	if m.ended.IsZero() {
		return otherwise
	}
	return m.ended
}

// overlap is for how many seconds a life lay in a span.
func overlap(begun, ended time.Time, sp *span) float64 {
	if begun.Before(sp.from) {
		begun = sp.from
	}
	if ended.After(sp.to) {
		ended = sp.to
	}
	return ended.Sub(begun).Seconds()
}
