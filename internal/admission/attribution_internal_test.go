package admission

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/usage"
)

// machine is an engine that makes tokens at a steady speed for each answer.
type machine struct {
	speeds map[*tally]float64 // tokens a second; 0: it waits
	made   map[*tally]float64
	at     time.Time
	broken bool
}

func newMachine() *machine {
	return &machine{at: time.Now(), speeds: map[*tally]float64{}, made: map[*tally]float64{}}
}

// run lets the machine work until now.
func (m *machine) run() {
	took := time.Since(m.at).Seconds()
	for s, speed := range m.speeds {
		m.made[s] += speed * took
		if s.whole == nil { // a stream: it tells its tokens as they come
			s.completion.Store(int64(m.made[s]))
		}
	}
	m.at = time.Now()
}

func (m *machine) count(context.Context) (Generation, error) {
	if m.broken {
		return Generation{}, errors.New("no answer")
	}
	m.run()
	g := Generation{Engines: 1}
	for s, made := range m.made {
		g.Tokens += int64(made)
		if m.speeds[s] > 0 {
			g.Running++
		}
	}
	return g, nil
}

func (m *machine) start(u *attribution, lease string, o Order, speed float64) *tally {
	s := &tally{}
	m.run()
	u.join(context.Background(), s, lease, o, time.Now())
	synctest.Wait() // for its first look
	m.speeds[s] = speed
	m.made[s] += 0
	return s
}

// end ends an answer whose usage was seen.
func (m *machine) end(u *attribution, s *tally) {
	m.run()
	u.leave(s, int64(m.made[s]), time.Now())
	delete(m.speeds, s)
}

func pass(u *attribution, seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		if u.due() {
			u.read(context.Background())
		}
	}
}

var (
	wholeOrder  = Order{Model: "m", Format: usage.Chat, N: 1, Prompts: 1}
	streamOrder = Order{Model: "m", Format: usage.Chat, Stream: true, N: 1, Prompts: 1}
)

// near wants what is charged within a share of what was made.
func near(t *testing.T, what string, got int64, want, within float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > within*want+1 {
		t.Errorf("%s: charged %d, made %v", what, got, want)
	}
}

func TestWhatNobodySawIsReadFromTheEngine(t *testing.T) {
	for name, neighbours := range map[string]func(m *machine, u *attribution) (after func()){
		"alone": func(*machine, *attribution) func() { return func() {} },
		"beside streams": func(m *machine, u *attribution) func() {
			for range 5 {
				m.start(u, "", streamOrder, 200)
			}
			return func() {}
		},
		"beside another gateway's answers": func(m *machine, _ *attribution) func() {
			for range 3 {
				s := &tally{whole: &wholeAnswer{}}
				m.speeds[s], m.made[s] = 50, 0
			}
			return func() {}
		},
		"beside an answer that ends": func(m *machine, u *attribution) func() {
			s := m.start(u, "", wholeOrder, 400)
			return func() { m.end(u, s) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine()
				u := newAttribution(m.count)
				after := neighbours(m, u)
				pass(u, 2)
				mine := m.start(u, "", wholeOrder, 50)
				pass(u, 7)
				after()
				time.Sleep(300 * time.Millisecond)
				near(t, name, u.tokens(t.Context(), mine, time.Now(), 1<<30, 0), m.made[mine], 0.1)
			})
		})
	}
}

// TestStreamsThatComeAndGoAreNoOtherGateway: at a look one has ended that ran at
// the look before.
func TestStreamsThatComeAndGoAreNoOtherGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		mine := m.start(u, "", wholeOrder, 50)
		for range 4 {
			stream := m.start(u, "", streamOrder, 200)
			pass(u, 1)
			m.end(u, stream)
			pass(u, 1)
		}
		near(t, "beside streams that come and go", u.tokens(t.Context(), mine, time.Now(), 1<<30, 0), m.made[mine], 0.1)
	})
}

// TestAStreamOfSeveralChoicesIsNoOtherGateway: the engine counts each of them.
func TestAStreamOfSeveralChoicesIsNoOtherGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(func(ctx context.Context) (Generation, error) {
			g, err := m.count(ctx)
			g.Running += 15
			return g, err
		})
		m.start(u, "", Order{Model: "m", Format: usage.Chat, Stream: true, N: 16, Prompts: 1}, 800)
		pass(u, 2)
		mine := m.start(u, "", wholeOrder, 50)
		pass(u, 6)
		near(t, "beside a stream of 16 choices", u.tokens(t.Context(), mine, time.Now(), 1<<30, 0), m.made[mine], 0.1)
	})
}

// TestWhoCameAndWentBetweenTwoLooksPays: no look has ever seen it run, alone or
// beside an answer that is seen to run.
func TestWhoCameAndWentBetweenTwoLooksPays(t *testing.T) {
	for _, beside := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine()
			u := newAttribution(m.count)
			if beside {
				m.start(u, "", wholeOrder, 100)
				pass(u, 2)
			}
			for range 5 {
				mine := m.start(u, "", wholeOrder, 100)
				time.Sleep(800 * time.Millisecond)
				m.run()
				m.speeds[mine] = 0
				got := u.tokens(t.Context(), mine, time.Now(), 1<<30, 0)
				near(t, "a short one", got, m.made[mine], 0.1)
				u.leave(mine, got, time.Now())
				delete(m.speeds, mine)
				time.Sleep(150 * time.Millisecond)
			}
		})
	}
}

func TestWhoWaitsInTheQueueIsNotChargedForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		first := m.start(u, "", wholeOrder, 100)
		waits := m.start(u, "", wholeOrder, 0)
		pass(u, 5)
		if got := u.tokens(t.Context(), waits, time.Now(), 1<<30, 500); got > 10 {
			t.Errorf("a request in the queue is charged %d", got)
		}
		u.leave(waits, 0, time.Now())
		near(t, "the one that ran", u.tokens(t.Context(), first, time.Now(), 1<<30, 0), m.made[first], 0.1)
	})
}

// TestStreamsInTheQueueDoNotHideWhoRuns: they are live here and do not run there.
func TestStreamsInTheQueueDoNotHideWhoRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		mine := m.start(u, "", wholeOrder, 100)
		for range 3 {
			m.start(u, "", streamOrder, 0)
		}
		pass(u, 5)
		near(t, "who runs while streams wait", u.tokens(t.Context(), mine, time.Now(), 1<<30, 0), m.made[mine], 0.1)
	})
}

func TestSeveralUnexplainedShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		a, b := m.start(u, "", wholeOrder, 100), m.start(u, "", wholeOrder, 100)
		pass(u, 4)
		c := m.start(u, "", Order{Model: "m", Format: usage.Completions, N: 2, Prompts: 1}, 200)
		pass(u, 4)
		for what, s := range map[string]*tally{"a": a, "b": b, "c": c} {
			got := u.tokens(t.Context(), s, time.Now(), 1<<30, 0)
			near(t, what, got, m.made[s], 0.1)
			m.run()
			u.leave(s, got, time.Now())
			delete(m.speeds, s)
		}
	})
}

func TestAHungEngineCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		mine := m.start(u, "", wholeOrder, 100)
		pass(u, 3)
		m.run()
		m.speeds[mine] = 0
		pass(u, 60)
		near(t, "until it hung", u.tokens(t.Context(), mine, time.Now(), 1<<30, 0), 300, 0.1)
	})
}

func TestNeverMoreThanWasAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		u := newAttribution(m.count)
		mine := m.start(u, "", wholeOrder, 100)
		pass(u, 5)
		if got := u.tokens(t.Context(), mine, time.Now(), 70, 0); got != 70 {
			t.Errorf("charged %d, asked for 70", got)
		}
	})
}

func TestWithoutACounterTheUsualSpeedCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.broken = true
		u := newAttribution(m.count)
		mine := m.start(u, "", wholeOrder, 80)
		pass(u, 5)
		if got := u.tokens(t.Context(), mine, time.Now(), 1<<30, 256); got != 256 {
			t.Errorf("with nothing learned: charged %d, want the estimate", got)
		}
		m.end(u, mine)
		next := m.start(u, "", wholeOrder, 80)
		pass(u, 10)
		m.run()
		near(t, "by the usual speed", u.tokens(t.Context(), next, time.Now(), 1<<30, 256), m.made[next], 0.1)
	})
}

// TestEndsDoNotPileUpWithoutACounter: an engine whose counter cannot be read must
// not cost memory with each answer, also while a long one is never over.
func TestEndsDoNotPileUpWithoutACounter(t *testing.T) {
	for name, fail := range map[string]func(m *machine, u *attribution){
		"none":          func(_ *machine, u *attribution) { u.count = nil },
		"never one":     func(m *machine, _ *attribution) { m.broken = true },
		"none any more": func(m *machine, u *attribution) { pass(u, 3); m.broken = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine()
				u := newAttribution(m.count)
				m.start(u, "", wholeOrder, 10) // it runs on
				fail(m, u)
				for range 200 {
					s := m.start(u, "", wholeOrder, 100)
					pass(u, 1)
					m.end(u, s)
				}
				if got := len(u.whole); got > 10 {
					t.Errorf("%d ends are remembered", got)
				}
			})
		})
	}
}

// TestASlowCounterIsAskedOnceForAll: a hundred clients leave at once while the
// engine does not answer.
func TestASlowCounterIsAskedOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		u := newAttribution(func(ctx context.Context) (Generation, error) {
			asked.Add(1)
			<-ctx.Done()
			return Generation{}, ctx.Err()
		})
		begun := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { u.read(t.Context()) })
		}
		all.Wait()
		if got, took := asked.Load(), time.Since(begun); got > 2 || took > 2*readTimeout {
			t.Errorf("asked %d times in %v", got, took)
		}
	})
}

// TestOnlyWhatOverlapsAnAnswerIsReckoned: who ends holds up the requests that begin
// for no more than a copy of what bears on its share.
func TestOnlyWhatOverlapsAnAnswerIsReckoned(t *testing.T) {
	u := newAttribution(func(context.Context) (Generation, error) { return Generation{}, nil })
	start := time.Now()
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	for i := range mostIntervals {
		u.intervals = append(u.intervals, interval{from: at(i), to: at(i + 1), grown: 10, running: -1})
		u.whole = append(u.whole, &wholeAnswer{choices: 1, begun: at(i), ended: at(i + 1), tokens: 10})
	}
	m := &wholeAnswer{choices: 1, begun: at(300), tokens: -1}
	u.whole = append(u.whole, m)
	n := neighboursOf(u.intervals, u.whole, m, at(303))
	if len(n.intervals) != 3 || len(n.whole) != 4 || n.own != 3 {
		t.Fatalf("%d spans and %d answers bear on it, itself the one at %d; want 3, 4 and 3", len(n.intervals), len(n.whole), n.own)
	}
	if got := n.shareOf(&n.intervals[0]); got != 0 {
		t.Errorf("its share of what another explains is %v", got)
	}
	n.intervals[0].grown = 16
	if got := n.shareOf(&n.intervals[0]); got != 6 {
		t.Errorf("its share of what nobody else explains is %v, want 6", got)
	}
}
