package limit

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// event is one use, as a naive window would keep it.
type event struct {
	at instant
	n  int64
}

// naive is a window as a list of events. Those of one second leave together,
// when the newest of them is [Window] old.
type naive []*event

func (l naive) leaves(e *event) instant {
	newest := e.at
	for _, o := range l {
		if o.n > 0 && o.at/time.Second == e.at/time.Second {
			newest = max(newest, o.at)
		}
	}
	return newest + Window
}

func (l naive) sum(now instant) (n int64) {
	for _, e := range l {
		if l.leaves(e) > now {
			n += e.n
		}
	}
	return n
}

// until tries every instant at which something leaves.
func (l naive) until(now instant, x int64) time.Duration {
	if l.sum(now) <= x {
		return 0
	}
	var best time.Duration = -1
	for _, e := range l {
		if at := l.leaves(e); at > now && l.sum(at) <= x && (best < 0 || at-now < best) {
			best = at - now
		}
	}
	return best
}

func TestWindowIsTheListOfItsEvents(t *testing.T) { rapid.Check(t, windowIsItsEvents) }

func FuzzWindowIsTheListOfItsEvents(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		seed := make([]byte, 1024)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(rapid.MakeFuzz(windowIsItsEvents))
}

func windowIsItsEvents(t *rapid.T) {
	var (
		w    window
		list naive
		now  = origin
	)
	w.slide(now)
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		list = slices.DeleteFunc(list, func(e *event) bool { return list.leaves(e) <= now })
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0, 1:
			n := rapid.Int64Range(-1, 1000).Draw(t, "n")
			w.add(now, n)
			list = append(list, &event{now, max(n, 0)})
		case 2: // something that happened before, as after a restart
			at := now - time.Duration(rapid.Int64Range(0, int64(Window)-1).Draw(t, "ago"))
			w.add(at, 5)
			// The oldest second takes nothing more.
			second, _ := split(now)
			list = append(list, &event{max(at, instant(second-span+2)*time.Second), 5})
		case 3:
			now += time.Duration(rapid.OneOf(
				rapid.Int64Range(0, int64(3*time.Second)),
				rapid.Int64Range(0, int64(Window)+int64(5*time.Second)),
			).Draw(t, "pass"))
			w.slide(now)
		case 4:
			if len(list) == 0 {
				continue
			}
			e := rapid.SampledFrom(list).Draw(t, "given back")
			second, _ := split(e.at)
			w.take(second, e.n)
			if got, want := w.total, list.sum(now)-e.n; got != want {
				t.Fatalf("sum after giving back %d: got %d, want %d", e.n, got, want)
			}
			return // the bucket remembers how young the event was, the list would not
		}
		if got, want := w.total, list.sum(now); got != want {
			t.Fatalf("sum at %v: got %d, want %d", now, got, want)
		}
		x := rapid.Int64Range(0, 2000).Draw(t, "x")
		if got, want := w.until(now, x), list.until(now, x); got != want {
			t.Fatalf("until the sum is %d: got %v, want %v", x, got, want)
		}
		if got, want := w.empties(now), list.until(now, 0); got != want {
			t.Fatalf("until empty: got %v, want %v", got, want)
		}
	}
}

func TestWindowTakesFromOneSecondOnly(t *testing.T) {
	var w window
	w.slide(origin)
	w.add(origin, 10)
	later := origin + 5*time.Second
	w.slide(later)
	w.add(later, 20)
	first, _ := split(origin)
	w.take(first, 15)
	if w.total != 20 {
		t.Errorf("total: got %d, want 20: 15 taken from a second with 10", w.total)
	}
	w.take(first+span, 1)
	w.take(first-span, 1)
	w.take(first+5, -1)
	if w.total != 20 {
		t.Errorf("total: got %d, want 20: nothing to take", w.total)
	}
}

func TestWindowStandsWhenTheClockDoes(t *testing.T) {
	var w window
	now := origin + time.Hour
	w.slide(now)
	w.add(now, 10)
	w.slide(now - 30*time.Minute)
	if w.total != 10 || w.until(now, 0) != Window {
		t.Errorf("got %d for %v, want 10 for %v", w.total, w.until(now, 0), Window)
	}
}

func TestWindowDoesNotAllocate(t *testing.T) {
	var w window
	now := origin
	if n := testing.AllocsPerRun(1000, func() {
		now += 300 * time.Millisecond
		w.slide(now)
		w.add(now, 3)
		second, _ := split(now)
		w.take(second, 1)
		if w.until(now, 20) < 0 || w.empties(now) <= 0 {
			t.Error("times run backwards")
		}
	}); n != 0 {
		t.Errorf("allocations: got %v, want 0", n)
	}
}

func BenchmarkWindow(b *testing.B) {
	var w window
	now := origin
	b.ReportAllocs()
	for b.Loop() {
		now += 7 * time.Millisecond
		w.slide(now)
		w.add(now, 1)
		if w.until(now, 100) < 0 {
			b.Fatal("times run backwards")
		}
	}
}
