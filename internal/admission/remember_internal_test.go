package admission

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// restarted is the attribution of the next process. Its engines are unknown for a
// moment.
func (m *machine) restarted(u *attribution) *attribution {
	from := time.Now().Add(200 * time.Millisecond)
	next := newAttribution(func(ctx context.Context) (Generation, error) {
		g, err := m.count(ctx)
		if time.Now().Before(from) {
			return Generation{}, err
		}
		return g, err
	})
	next.recall(u.remember())
	return next
}

// again makes an answer of the process before go on, as its meter says.
func (m *machine) again(u *attribution, old *tally, lease string, o Order, begun time.Time) *tally {
	m.run()
	s := &tally{}
	s.completion.Store(old.completion.Load())
	u.join(context.Background(), s, lease, o, begun)
	m.made[s], m.speeds[s] = m.made[old], m.speeds[old]
	delete(m.made, old)
	delete(m.speeds, old)
	return s
}

// TestARestartDoesNotForgetWhatTheEngineHasMade: an answer that is left right after a
// restart, or was left while nobody was there, costs what was made for it.
func TestARestartDoesNotForgetWhatTheEngineHasMade(t *testing.T) {
	for name, away := range map[string]time.Duration{"right after": 0, "a moment away": 3 * time.Second, "long away": 2 * time.Minute} {
		for _, beside := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMachine()
					u := newAttribution(m.count)
					var stream *tally
					if beside {
						stream = m.start(u, "stream", streamOrder, 400)
					}
					begun := time.Now()
					mine := m.start(u, "mine", wholeOrder, 50)
					pass(u, 5)
					time.Sleep(700 * time.Millisecond)
					next := m.restarted(u)
					time.Sleep(away)
					if beside {
						m.again(next, stream, "stream", streamOrder, begun)
					}
					mine = m.again(next, mine, "mine", wholeOrder, begun)
					near(t, name, next.tokens(t.Context(), mine, time.Now(), 1<<30, 256), m.made[mine], 0.1)
				})
			})
		}
	}
}

// TestWhoEndedWhileNobodyWasThereExplainsHisShare: the tokens of an answer that ended
// meanwhile are not those of another.
func TestWhoEndedWhileNobodyWasThereExplainsHisShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		begun := time.Now()
		mine, other := m.start(u, "mine", wholeOrder, 50), m.start(u, "other", wholeOrder, 200)
		stream := m.start(u, "stream", streamOrder, 300)
		pass(u, 4)
		next := m.restarted(u)
		time.Sleep(time.Second)
		ended := time.Now()
		other, stream = m.again(next, other, "other", wholeOrder, begun), m.again(next, stream, "stream", streamOrder, begun)
		next.leave(other, int64(m.made[other]), ended)
		next.leave(stream, int64(m.made[stream]), ended)
		m.speeds[other], m.speeds[stream] = 0, 0
		time.Sleep(2 * time.Second)
		mine = m.again(next, mine, "mine", wholeOrder, begun)
		near(t, "beside them", next.tokens(t.Context(), mine, time.Now(), 1<<30, 256), m.made[mine], 0.1)
	})
}

// TestWhatCannotBeRecalledIsNothing: no file, a torn one, one of yesterday.
func TestWhatCannotBeRecalledIsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		m.start(u, "old", wholeOrder, 50)
		pass(u, 3)
		whole := u.remember() // its last reading is of now
		if u.remember() != nil {
			t.Error("what has not changed is written again")
		}
		time.Sleep(oldestReading)
		for name, b := range map[string][]byte{"none": nil, "torn": whole[:len(whole)/2], "other": []byte(`{"at":"x"}`), "old": whole} {
			m := newMachine()
			next := newAttribution(m.count)
			next.recall(b)
			mine := m.start(next, "mine", wholeOrder, 100)
			pass(next, 3)
			near(t, name, next.tokens(t.Context(), mine, time.Now(), 1<<30, 256), m.made[mine], 0.1)
		}
	})
}

// TestTheUsualSpeedOutlivesARestart, also where no counter is to be had afterwards.
func TestTheUsualSpeedOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		first := m.start(u, "first", wholeOrder, 80)
		pass(u, 5)
		m.end(u, first)
		begun := time.Now()
		old := m.start(u, "mine", wholeOrder, 80)
		next := m.restarted(u)
		time.Sleep(4 * time.Second)
		mine := m.again(next, old, "mine", wholeOrder, begun)
		m.broken = true
		m.run()
		near(t, "by the usual speed", next.tokens(t.Context(), mine, time.Now(), 1<<30, 256), m.made[mine], 0.1)
	})
}
