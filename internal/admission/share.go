package admission

import "time"

// maker is an answer whose tokens are not seen while they are made.
type maker struct {
	model        string
	choices      int64
	begun, ended time.Time // ended is zero while it runs
	gone         time.Time // from the engine; zero while it is there
	tokens       int64     // below 0: not known
}

// span is the time between two looks.
type span struct {
	from, to time.Time
	grown    int64 // tokens that no stream explains
	running  int64 // sequences that ran and whose tokens no stream tells; below 0: not said
	foreign  int64 // sequences of another gateway
}

// noticed is how much later the engine begins to count a request, and ceases to.
const noticed = 100 * time.Millisecond

// nearby is a copy of what bears on one maker's share, so that it is reckoned
// without the lock that every request takes.
type nearby struct {
	spans  []span
	makers []maker // oldest first
	own    int     // which of them it is
}

// nearbyOf finds it for a maker that ends then. The lock that guards the spans and the
// makers must be held.
func nearbyOf(spans []span, makers []*maker, m *maker, end time.Time) nearby {
	n := nearby{own: -1}
	for i := range spans {
		if sp := &spans[i]; overlap(m.begun, end, sp) > 0 {
			n.spans = append(n.spans, *sp)
		}
	}
	if len(n.spans) == 0 {
		return n
	}
	all := span{from: n.spans[0].from, to: n.spans[len(n.spans)-1].to}
	for _, o := range makers {
		if overlap(o.begun, o.end(all.to), &all) <= 0 {
			continue
		}
		if o == m {
			n.own = len(n.makers)
		}
		n.makers = append(n.makers, *o)
	}
	return n
}

// shareOf is the maker's part of a span: what others explain is theirs, and the
// rest is divided by the time that each was running. Engines serve who came
// first, so that what is not running yet are the youngest; what runs there and is
// not known here has its part too.
func (n *nearby) shareOf(sp *span) float64 {
	rest, weights, own := float64(sp.grown), 0.0, 0.0
	place := int64(0)
	for i := range n.makers {
		o := &n.makers[i]
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
		if i == n.own {
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
