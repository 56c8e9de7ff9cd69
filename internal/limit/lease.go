package limit

// lease is one admitted request.
type lease struct {
	id      string
	account *account
	slots   int64 // of the key
	wide    int64 // of the gateway
	claimed bool
	// hasReserved: the one reservation of this lease was made, open or used up.
	hasReserved bool
	reserved    int64 // what is still open of it
	total       int64 // tokens used so far
	granted     int64 // tokens that it may use in all by its quota; Unlimited: no quota
	held        int64 // what is still open of that
	counted     int64 // second in which the request was counted
	expires     instant
	waiting     node[lease] // in Memory.provisional until claimed

	// What of total went where, oldest first, so that a final count below an
	// earlier one is taken from this lease's own share and from nobody else's.
	seconds []secondShare // in the token window, the last span seconds only
	periods []periodShare // in the quota counters
}

type secondShare struct{ second, tokens int64 }

type periodShare struct {
	period string
	tokens int64
}

// grow counts tokens that the lease used since the last report: in the window,
// in the quota, and out of its reservation. It returns by how much the
// reservation shrank.
func (l *lease) grow(tokens int64, period string, now instant) int64 {
	a := l.account
	a.tokens.slide(now)
	a.tokens.add(now, tokens)
	second, _ := split(now)
	l.noteSecond(second, tokens)
	if a.quota.add(period, tokens) {
		l.notePeriod(period, tokens)
	}
	a.debt.grow(tokens, now)
	l.total += tokens
	l.unhold(min(tokens, l.held))
	return l.unreserve(min(tokens, l.reserved))
}

// shrink gives tokens back that were reported and then found not to be used,
// the newest first. What has slid out of the window needs no giving back.
func (l *lease) shrink(tokens int64, now instant) {
	a := l.account
	a.tokens.slide(now)
	for left, i := tokens, len(l.seconds)-1; left > 0 && i >= 0; i-- {
		share := min(left, l.seconds[i].tokens)
		a.tokens.take(l.seconds[i].second, share)
		l.seconds[i].tokens -= share
		left -= share
	}
	for left, i := tokens, len(l.periods)-1; left > 0 && i >= 0; i-- {
		share := min(left, l.periods[i].tokens)
		a.quota.add(l.periods[i].period, -share)
		l.periods[i].tokens -= share
		left -= share
	}
	a.debt.grow(-tokens, now)
	l.total -= tokens
}

// hold takes tokens more of the quota.
func (l *lease) hold(tokens int64) {
	l.granted += tokens
	l.held += tokens
	l.account.held += tokens
}

// unhold gives part of what is held back.
func (l *lease) unhold(tokens int64) {
	l.held -= tokens
	l.account.held -= tokens
}

// extend makes the lease cover total tokens and a step more.
func (l *lease) extend(caps *Caps, total int64) error {
	if l.granted < 0 || caps.Quota < 0 {
		return nil
	}
	used, known := l.account.quota.used(caps.QuotaPeriod)
	if !known {
		return ErrUnseeded
	}
	if l.granted < l.total {
		l.granted = l.total // what is over is used already
	}
	left := max(0, caps.Quota-used-l.account.held)
	more := max(0, total+max(ExtendStep, ahead(left))-l.granted)
	l.hold(min(more, left))
	if more > left { // its prompt is known by now: what was spare for it is free
		l.granted += min(more-left, max(0, l.held-(l.granted-l.total)))
	}
	return nil
}

// unreserve closes part of the reservation and returns that part.
func (l *lease) unreserve(tokens int64) int64 {
	l.reserved -= tokens
	l.account.reserved -= tokens
	return tokens
}

func (l *lease) noteSecond(second, tokens int64) {
	if n := len(l.seconds); n > 0 && l.seconds[n-1].second == second {
		l.seconds[n-1].tokens += tokens
		return
	}
	if len(l.seconds) >= int(span) { // the oldest is out of the window by now
		l.seconds = append(l.seconds[:0], l.seconds[1:]...)
	}
	l.seconds = append(l.seconds, secondShare{second, tokens})
}

func (l *lease) notePeriod(period string, tokens int64) {
	if n := len(l.periods); n > 0 && l.periods[n-1].period == period {
		l.periods[n-1].tokens += tokens
		return
	}
	if len(l.periods) >= periodsKept {
		l.periods = append(l.periods[:0], l.periods[1:]...)
	}
	l.periods = append(l.periods, periodShare{period, tokens})
}
