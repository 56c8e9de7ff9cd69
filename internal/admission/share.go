package admission

import "time"

// wholeAnswer is an answer whose tokens are told at its end only.
type wholeAnswer struct {
	lease        string
	model        string
	choices      int64
	begun, ended time.Time // ended is zero while it runs
	gone         time.Time // when the engine had no more to do with it; zero before
	tokens       int64     // below 0: not known
	lost         bool      // it ran at the process before us, and no meter has said that it goes on
	resumed      bool      // a meter has
	promptBytes  int64     // of its order, like maxTokens
	maxTokens    int64
}

// interval is the time between two readings of the engines' counters.
type interval struct {
	from, to time.Time
	grown    int64 // tokens that no stream accounts for
	running  int64 // running sequences that no stream accounts for; below 0: not known
	foreign  int64 // running sequences of another gateway
}

// engineLag is how much later than the gate the engine begins to count an answer, and
// ceases to.
const engineLag = 100 * time.Millisecond

// neighbours are the intervals that a whole answer ran in and the answers that ran
// beside it: copies, so that its share is computed without the lock that every
// request takes.
type neighbours struct {
	intervals []interval
	whole     []wholeAnswer // oldest first
	own       int           // the index of the answer itself in whole
}

// neighboursOf copies them for an answer that ends then. The lock that guards the
// intervals and the answers must be held.
func neighboursOf(intervals []interval, whole []*wholeAnswer, of *wholeAnswer, end time.Time) neighbours {
	n := neighbours{own: -1}
	for i := range intervals {
		if overlap(of.begun, end, &intervals[i]) > 0 {
			n.intervals = append(n.intervals, intervals[i])
		}
	}
	if len(n.intervals) == 0 {
		return n
	}
	all := interval{from: n.intervals[0].from, to: n.intervals[len(n.intervals)-1].to}
	for _, w := range whole {
		if overlap(w.begun, w.end(all.to), &all) <= 0 {
			continue
		}
		if w == of {
			n.own = len(n.whole)
		}
		n.whole = append(n.whole, *w)
	}
	return n
}

// shareOf is the answer's share of the tokens of an interval. Answers with known
// tokens take theirs first. The rest is divided by the time that each was running,
// foreign sequences included. Engines serve in the order of arrival: when fewer
// sequences run than there are answers, the youngest answers wait in the queue.
func (n *neighbours) shareOf(in *interval) float64 {
	rest, weights, own := float64(in.grown), 0.0, 0.0
	place := int64(0)
	for i := range n.whole {
		w := &n.whole[i]
		during := overlap(w.begun, w.end(in.to), in)
		if during <= 0 {
			continue
		}
		if w.tokens >= 0 {
			if life := w.ended.Sub(w.begun).Seconds(); life > 0 {
				rest -= float64(w.tokens) * during / life
			}
			continue
		}
		// An answer that began and ended between two readings is in neither's count of
		// running sequences.
		if in.running >= 0 && (w.counted(in.from) || w.counted(in.to)) {
			place += w.choices
			if place-w.choices >= in.running {
				continue // it waits
			}
		}
		weights += during * float64(w.choices)
		if i == n.own {
			own = during * float64(w.choices)
		}
	}
	weights += float64(in.foreign) * in.to.Sub(in.from).Seconds()
	if weights <= 0 || rest <= 0 {
		return 0
	}
	return rest * own / weights
}

// counted reports whether the engine counted the answer then, running or in its
// queue.
func (w *wholeAnswer) counted(at time.Time) bool {
	exit := w.exit()
	return at.Sub(w.begun) >= engineLag && (exit.IsZero() || exit.After(at))
}

// exit is when the engine had no more to do with it; zero before.
func (w *wholeAnswer) exit() time.Time {
	if w.gone.IsZero() {
		return w.ended
	}
	return w.gone
}

// end is when the answer ended, or otherwise while it runs.
func (w *wholeAnswer) end(otherwise time.Time) time.Time {
	if exit := w.exit(); !exit.IsZero() {
		return exit
	}
	return otherwise
}

// overlap is for how many seconds a life lay in an interval.
func overlap(begun, ended time.Time, in *interval) float64 {
	if begun.Before(in.from) {
		begun = in.from
	}
	if ended.After(in.to) {
		ended = in.to
	}
	return ended.Sub(begun).Seconds()
}
