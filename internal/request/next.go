package request

import "fmt"

// IllegalError says that an event cannot happen in a state: it is too late, or
// somebody else was first.
type IllegalError struct {
	State State
	Event Event
}

func (e *IllegalError) Error() string {
	return fmt.Sprintf("a request that is %s cannot be %q", e.State, e.Event.String())
}

// Next returns the state after the event and the effects that the caller must
// perform. An event that is not legal returns the state as it is and an
// [*IllegalError].
func (s State) Next(on Event) (State, Effects, error) {
	r := fit(s, on)
	if r == nil || on == onItself {
		return s, 0, &IllegalError{s, on}
	}
	var do Effects
	for ; r != nil; r = fit(s, onItself) {
		s, do = s.after(r), do|r.do
	}
	return s, do, nil
}

// after is the state when the row has been followed.
func (s State) after(r *row) State {
	s.Stage = keep(s.Stage, r.to.Stage)
	s.Ledger = keep(s.Ledger, r.to.Ledger)
	s.Lease = keep(s.Lease, r.to.Lease)
	s.Entry = keep(s.Entry, r.to.Entry)
	s.Named = s.Named || r.to.Named
	s.Cut = s.Cut || r.to.Cut
	s.Gone = s.Gone || r.to.Gone
	return s
}

func keep[T Stage | Ledger | Lease | Entry](old, to T) T {
	if to == 0 {
		return old
	}
	return to
}

// byEvent is the table by event, in its order.
var byEvent = func() (rows [events][]*row) {
	for i := range table {
		rows[table[i].on] = append(rows[table[i].on], &table[i])
	}
	return rows
}()

// fit is the row of the event that fits the state; nil when there is none.
func fit(s State, on Event) *row {
	for _, r := range byEvent[on] {
		if r.fits(s) {
			return r
		}
	}
	return nil
}

func (r *row) fits(s State) bool {
	return r.stage.has(uint8(s.Stage)) && r.ledger.has(uint8(s.Ledger)) && r.lease.has(uint8(s.Lease)) &&
		r.entry.has(uint8(s.Entry)) && r.named.holds(s.Named) && r.cut.holds(s.Cut) && r.gone.holds(s.Gone)
}
