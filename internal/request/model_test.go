package request

import (
	"fmt"
	"slices"
	"testing"
)

// life is a state and what was done on the way to it.
type life struct {
	State
	taken, given, lapsing, settling, counted, recorded, forgotten uint8
}

// can reports whether the world can bring that event: an answer needs a question.
func (l life) can(on Event) bool {
	switch { //nolint:staticcheck // a tagged one would have to name every event
	case on == OnTicketed, on == OnDenied:
		return l.Stage == Arrived
	case on == OnBegun, on == OnIntentRefused, on == OnIntentUnknown:
		return l.Stage == Reserved
	case on == OnLapsed:
		return l.lapsing > 0
	case on == OnElsewhere:
		return l.lapsing > 0 || l.Stage == Claimed
	case on == OnAccepted, on == OnRefused, on == OnRowMissing:
		return l.settling > 0
	case on == OnExpired:
		return l.Awaits() != WaitNothing
	}
	return true
}

// step is the life after an event; false when it is illegal.
func (l life) step(on Event) (life, Effects, bool) {
	next, do, err := l.Next(on)
	if err != nil {
		return l, 0, false
	}
	switch {
	case on == OnTicketed, on == OnReattached, on == OnClaimed && l.Stage == New:
		l.taken++
	case on == OnLapsed:
		l.lapsing--
		l.given++
	case on == OnElsewhere:
		l.lapsing -= min(l.lapsing, 1)
		l.taken--
	case on == OnAccepted, on == OnRefused, on == OnRowMissing:
		l.settling--
	}
	for _, counter := range [...]struct {
		of Effect
		n  *uint8
	}{
		{DoGiveBack, &l.given},
		{DoLapse, &l.lapsing},
		{DoSettle, &l.settling},
		{DoRename, &l.settling},
		{DoCount, &l.counted},
		{DoForget, &l.forgotten},
		{DoRecord, &l.recorded},
	} {
		if do.Has(counter.of) {
			*counter.n++
		}
	}
	l.State = next
	return l, do, true
}

// wrong says which promise of the package the life breaks; "" when none.
func (l life) wrong() string {
	switch {
	case l.given > l.taken:
		return "a lease went back twice, or was never taken"
	case (l.Lease == LeaseReturned) != (l.given == 1):
		return "the state does not say where the lease is"
	case l.lapsing > 1 || l.lapsing > 0 && l.Lease != LeaseHeld:
		return "a ticket lapses twice"
	case l.settling > 1:
		return "two writes of the row are in flight"
	case (l.settling == 1) != (l.Ledger == LedgerWriting || l.Ledger == LedgerNaming):
		return "the state does not say whether a write is in flight"
	}
	return l.wrongAfter()
}

// wrongAfter is the second half of wrong.
func (l life) wrongAfter() string {
	switch {
	case l.counted > 1:
		return "counted twice"
	case l.counted == 1 && l.Ledger != LedgerWritten:
		return "counted before it was settled"
	case l.recorded > 1 || l.recorded == 1 && l.Stage != Done:
		return "something happens after the access record"
	case (l.Stage == Done) != (l.forgotten == 1):
		return "it is not forgotten at its end, and only then"
	case l.Stage != Done:
		return ""
	}
	return l.wrongEnd()
}

// wrongEnd says which promise a life that is over breaks; "" when none.
func (l life) wrongEnd() string {
	switch {
	case l.given != l.taken:
		return "a lease was lost"
	case (l.Ledger == LedgerWritten) != (l.counted == 1):
		return "the metrics do not say what the ledger says"
	case l.Ledger == LedgerOpen || l.settling > 0:
		return "a row was left open"
	}
	return ""
}

// lives are all that can be reached, each with the events that led to it.
func lives() (all map[life][]Event) {
	all = map[life][]Event{{}: nil}
	queue := []life{{}}
	for len(queue) > 0 {
		l := queue[0]
		queue = queue[1:]
		for on := onItself + 1; on < events; on++ {
			if !l.can(on) {
				continue
			}
			next, _, ok := l.step(on)
			if _, seen := all[next]; !ok || seen {
				continue
			}
			all[next] = append(slices.Clone(all[l]), on)
			queue = append(queue, next)
		}
	}
	return all
}

// reachable are the arrows of the table that some life takes.
func reachable() (found []arrow) {
	seen := map[arrow]bool{}
	for l := range lives() {
		for on := onItself + 1; on < events; on++ {
			if l.can(on) {
				follow(l.State, on, func(r *row, from, _ State) { seen[arrow{r, from.Stage}] = true })
			}
		}
	}
	for i := range table {
		for stage := New; stage <= Done; stage++ {
			if a := (arrow{&table[i], stage}); seen[a] {
				found = append(found, a)
			}
		}
	}
	return found
}

// TestEveryLifeKeepsThePromises goes through all states that can be reached.
func TestEveryLifeKeepsThePromises(t *testing.T) {
	all := lives()
	if len(all) < 200 {
		t.Errorf("only %d lives were found", len(all))
	}
	for l, path := range all {
		if why := l.wrong(); why != "" {
			t.Errorf("%s: a request that is %s after %v", why, l.State, path)
		}
		claimed := slices.Contains(path, OnClaimed) || slices.Contains(path, OnReattached)
		if withdrawn := slices.Contains(path, OnWithdrawn) || l.Lease == LeaseElsewhere; l.Stage == Done && claimed && !withdrawn && l.recorded != 1 {
			t.Errorf("no access record of a request that is %s after %v", l.State, path)
		}
		if !l.ends() {
			t.Errorf("no way to the end for a request that is %s after %v", l.State, path)
		}
	}
}

// ends reports whether the life comes to its end when the ledger works again, its
// holder goes, and time passes.
func (l life) ends() bool {
	for range 20 {
		if l.Stage == Done {
			return true
		}
		moved := false
		for _, on := range []Event{OnArrived, OnDenied, OnLapsed, OnBegun, OnAccepted, OnRetry, OnBroken, OnClosed, OnExpired} {
			if next, _, ok := l.step(on); ok && l.can(on) {
				l, moved = next, true
				break
			}
		}
		if !moved {
			return false
		}
	}
	return false
}

// TestNothingHappensAfterTheEnd: a request that is done takes no event.
func TestNothingHappensAfterTheEnd(t *testing.T) {
	for l := range lives() {
		for on := onItself; l.Stage == Done && on < events; on++ {
			next, do, err := l.Next(on)
			if err == nil || next != l.State || do != 0 {
				t.Errorf("a request that is %s takes %q: %v, %v", l.State, on, next, do)
			}
		}
	}
}

// TestOneRowFits: the table says one thing of an event, and what follows by itself
// comes to rest.
func TestOneRowFits(t *testing.T) {
	for l := range lives() {
		for on := onItself + 1; on < events; on++ {
			var fits []string
			for _, r := range byEvent[on] {
				if r.fits(l.State) {
					fits = append(fits, r.describe())
				}
			}
			if len(fits) > 1 {
				t.Errorf("a request that is %s: %d rows fit: %q", l.State, len(fits), fits)
			}
		}
		if r := fit(l.State, onItself); r != nil {
			t.Errorf("a request that is %s does not rest: %s", l.State, r.describe())
		}
	}
}

// TestEveryRowIsReached: no row is there for nothing.
func TestEveryRowIsReached(t *testing.T) {
	found := map[*row]bool{}
	for _, a := range reachable() {
		found[a.row] = true
	}
	for i := range table {
		if !found[&table[i]] {
			t.Errorf("no life takes row %d: %s", i, table[i].describe())
		}
	}
}

func ExampleState_Next() {
	var s State
	for _, on := range []Event{OnArrived, OnTicketed, OnClaimed, OnClosed, OnBegun} {
		next, do, err := s.Next(on)
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Printf("%s: %s; do %s\n", on, next, do)
		s = next
	}
	// Output:
	// arrived: arrived; do take
	// ticketed: ticketed, lease held; do nothing
	// claimed: claimed, lease held; do nothing
	// closed: closed, lease returned; do give back
	// a request that is closed, lease returned cannot be "begun"
}
