package placement_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/placement"
)

// engines are some of weight 1 with nothing waiting.
func engines(names ...string) []placement.Engine {
	out := make([]placement.Engine, len(names))
	for i, n := range names {
		out[i] = placement.Engine{Endpoint: n, Weight: 1}
	}
	return out
}

// prompt is one of some messages.
func prompt(messages ...string) *placement.Prompt {
	p := placement.NewPrompt("m")
	for _, m := range messages {
		p.Text([]byte(m))
		p.End()
	}
	return p
}

// words is a text of n words that differs with its name.
func words(name string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s%d ", name, i)
	}
	return b.String()
}

// run is a whole request whose engine keeps all that it sees; it returns the engine
// and why.
func run(p *placement.Placer, all []placement.Engine, messages ...string) (string, placement.Outcome) {
	s := p.Place(all, prompt(messages...), placement.Work{Prompt: 100}, false)
	defer s.Leave()
	s.Started(50)
	return s.Endpoints[0], s.Outcome
}

func TestAConversationStaysWhereItsPastIs(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b", "c", "d")
	home := map[string]int{}
	for c := range 20 {
		past := []string{words(fmt.Sprintf("system-of-%d-", c), 50)}
		first := ""
		for turn := range 6 {
			past = append(past, words(fmt.Sprintf("%d-%d-", c, turn), 3))
			at, why := run(p, all, past...)
			switch {
			case turn == 0:
				first = at
				home[at]++
				if why != placement.ByLoad {
					t.Errorf("the first turn: %s", why)
				}
			case at != first || why != placement.ByPrefix:
				t.Errorf("conversation %d, turn %d: at %s by %s, began at %s", c, turn, at, why, first)
			}
			past = append(past, "the answer, which no cache was told of")
		}
	}
	for _, e := range all {
		if home[e.Endpoint] != 5 {
			t.Errorf("20 conversations began at %v: idle engines take turns", home)
			break
		}
	}
}

func TestNewConversationsUnderOneSystemPromptSpread(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b", "c", "d")
	var seats []*placement.Seat
	got := map[string]int{}
	for c := range 80 {
		s := p.Place(all, prompt(words("system", 500), fmt.Sprint("question ", c)), placement.Work{Prompt: 500, Output: 500}, false)
		s.Started(500) // all of them are still being answered
		seats = append(seats, s)
		got[s.Endpoints[0]]++
		if c >= 16 {
			seats[c-16].Leave() // 16 at once
		}
		most, sum := 0.0, 0.0
		for _, e := range all {
			load := p.Load(e.Endpoint)
			most, sum = max(most, load), sum+load
		}
		if c >= 16 && most > 1.25*sum/4+1000 {
			t.Errorf("request %d: the fullest has %v, the mean is %v", c, most, sum/4)
		}
	}
	for _, n := range got {
		if float64(n) > 1.25*80/4 {
			t.Errorf("one prefix, 80 requests: %v", got)
		}
	}
}

func TestTheLeastLoaded(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.LeastLoaded})
	all := []placement.Engine{{Endpoint: "a", Weight: 1}, {Endpoint: "b", Weight: 2}, {Endpoint: "c"}}
	got := map[string]int{}
	for range 400 {
		s := p.Place(all, prompt("the same for all"), placement.Work{Prompt: 10}, false)
		if s.Outcome != placement.ByLoad {
			t.Fatalf("outcome %s", s.Outcome)
		}
		got[s.Endpoints[0]]++
	}
	if diff := cmp.Diff(map[string]int{"a": 100, "b": 200, "c": 100}, got); diff != "" {
		t.Errorf("400 requests that stay, weights 1, 2, 1 (-want +got):\n%s", diff)
	}
	// What an engine says is waiting counts as that many usual requests.
	p = placement.New(placement.Options{})
	all = engines("a", "b")
	for range 30 {
		p.Place(all, nil, placement.Work{Prompt: 100}, false).Leave()
	}
	all[0].Waiting = 3
	got = map[string]int{}
	for range 4 {
		got[p.Place(all, nil, placement.Work{Prompt: 100}, false).Endpoints[0]]++
	}
	if got["a"] > 1 || got["b"] < 3 {
		t.Errorf("with three waiting at a: %v", got)
	}
}

func TestEveryEngineIsNamedTheBestFirst(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 2})
	all := engines("a", "b", "c")
	p.Place(engines("a"), nil, placement.Work{Prompt: 30}, false)
	p.Place(engines("b"), nil, placement.Work{Prompt: 20}, false)
	s := p.Place(engines("c"), prompt(words("x", 100)), placement.Work{Prompt: 10}, false)
	s.Started(10)
	got := p.Place(all, prompt(words("y", 100)), placement.Work{Prompt: 1}, false).Endpoints
	if diff := cmp.Diff([]string{"c", "b", "a"}, got); diff != "" {
		t.Errorf("by load (-want +got):\n%s", diff)
	}
	for range 3 {
		p.Place(engines("a", "b"), nil, placement.Work{Prompt: 20}, false)
	}
	got = p.Place(all, prompt(words("x", 100), "more"), placement.Work{Prompt: 1}, false).Endpoints
	if got[0] != "c" || len(got) != 3 {
		t.Errorf("by prefix: %v", got)
	}
	many := engines("1", "2", "3", "4", "5", "6", "7", "8", "9")
	if got := p.Place(many, nil, placement.Work{Prompt: 1}, false).Endpoints; len(got) != 5 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 5 {
		t.Errorf("of nine: %v", got)
	}
}

func TestSpacesHaveNothingInCommon(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b")
	ask := func(space ...string) placement.Outcome {
		pr := placement.NewPrompt(space...)
		pr.Text([]byte(words("same", 100)))
		pr.End()
		s := p.Place(all, pr, placement.Work{Prompt: 100}, false)
		defer s.Leave()
		s.Started(10)
		return s.Outcome
	}
	for _, tt := range []struct {
		space []string
		want  placement.Outcome
	}{
		{[]string{"m1", "ann"}, placement.ByLoad},
		{[]string{"m1", "ann"}, placement.ByPrefix},
		{[]string{"m1", "bob"}, placement.ByLoad},
		{[]string{"m1"}, placement.ByLoad},
		{[]string{"m2", "ann"}, placement.ByLoad},
		{[]string{"m1", "bob"}, placement.ByPrefix},
	} {
		if got := ask(tt.space...); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.space, got, tt.want)
		}
	}
}

// TestASeatGivesBackWhatItHolds in every order of events.
func TestASeatGivesBackWhatItHolds(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b")
	at := func(what string, a, b float64, live int) {
		t.Helper()
		if p.Load("a") != a || p.Load("b") != b || p.Live("a")+p.Live("b") != live {
			t.Errorf("%s: %v %v, %d live; want %v %v, %d", what, p.Load("a"), p.Load("b"), p.Live("a")+p.Live("b"), a, b, live)
		}
	}
	s := p.Place(all[:1], prompt(words("x", 100)), placement.Work{Prompt: 1000}, false)
	at("placed", 1000, 0, 1)
	s.Remain(5)
	at("nothing was answered yet", 1000, 0, 1)
	s.ServedBy("b")
	at("the other engine took it", 0, 1000, 1)
	s.Started(300)
	s.Started(700)
	at("started", 0, 300, 1)
	s.Remain(900)
	at("it never grows", 0, 300, 1)
	s.ServedBy("a")
	at("and back", 300, 0, 1)
	s.Remain(-4)
	at("more than was said", 0, 0, 1)
	s.Cached(100, 50)
	s.Leave()
	s.Leave()
	s.ServedBy("b")
	s.Started(9)
	s.Remain(9)
	s.Cached(10, 10)
	at("left", 0, 0, 0)
	var none *placement.Seat
	none.ServedBy("a")
	none.Started(1)
	none.Remain(1)
	none.Cached(1, 1)
	none.Leave()
	// An engine that has gone, with a seat that has not.
	s = p.Place(all[:1], nil, placement.Work{Prompt: 10}, false)
	p.Keep([]string{"b"})
	s.Leave()
	at("its engine had gone", 0, 0, 0)
}

func TestAnEngineThatWasStartedAnewIsCold(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b")
	first, _ := run(p, all, words("x", 100))
	if at, why := run(p, all, words("x", 100), "more"); at != first || why != placement.ByPrefix {
		t.Fatalf("%s by %s", at, why)
	}
	p.Cold(first)
	if _, why := run(p, all, words("x", 100), "more"); why != placement.ByLoad {
		t.Errorf("after a restart: by %s", why)
	}
	p.Cold("nobody")
}

// TestWhatIsOnItsWayIsExpected: requests that begin alike come at once, before any of
// them is answered, and go to one engine; when that refuses, nothing is left of it.
func TestWhatIsOnItsWayIsExpected(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b")
	place := func(n int) *placement.Seat {
		return p.Place(all, prompt(words("x", 300), fmt.Sprint("question ", n)), placement.Work{Prompt: 500}, false)
	}
	first := place(1)
	if second := place(2); second.Outcome != placement.ByPrefix || second.Endpoints[0] != first.Endpoints[0] {
		t.Errorf("the second goes to %v by %s, the first to %v", second.Endpoints, second.Outcome, first.Endpoints)
	} else {
		second.Leave()
	}
	other := first.Endpoints[1]
	first.ServedBy(other)
	third := place(3)
	if third.Outcome != placement.ByPrefix || third.Endpoints[0] != other {
		t.Errorf("after the other engine took the first: %v by %s", third.Endpoints, third.Outcome)
	}
	third.Leave()
	first.Leave()
	if fourth := place(4); fourth.Outcome != placement.ByLoad {
		t.Errorf("when none was answered: by %s", fourth.Outcome)
	}
}

// TestWhatManySendAtOnceBeginsEverywhere: none of them is answered yet.
func TestWhatManySendAtOnceBeginsEverywhere(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b", "c", "d")
	got := map[string]int{}
	for n := range 16 {
		got[p.Place(all, prompt(words("x", 300), fmt.Sprint("question ", n)), placement.Work{Prompt: 500, Output: 20}, false).Endpoints[0]]++
	}
	for _, e := range all {
		if got[e.Endpoint] < 2 || got[e.Endpoint] > 6 {
			t.Errorf("sixteen at once: %v", got)
		}
	}
}

// TestAMatchThatWasExpectedTeachesNothing: two of one beginning come at once, and the
// engine had not read the first when the second came.
func TestAMatchThatWasExpectedTeachesNothing(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	run(p, engines("a"), words("old", 300))
	first := p.Place(engines("a"), prompt(words("x", 300), "one"), placement.Work{Prompt: 500}, false)
	second := p.Place(engines("a", "b"), prompt(words("x", 300), "two"), placement.Work{Prompt: 500}, false)
	first.Started(1)
	second.Started(1)
	second.Cached(500, 0)
	first.Leave()
	second.Leave()
	if _, why := run(p, engines("a", "b"), words("old", 300)); why != placement.ByPrefix {
		t.Errorf("what is older in that cache is forgotten: by %s", why)
	}
}

// TestOnlyWhatWasAnsweredIsInACache: a request that never began leaves nothing.
func TestOnlyWhatWasAnsweredIsInACache(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b")
	p.Place(all, prompt(words("x", 100)), placement.Work{Prompt: 100}, false).Leave()
	if _, why := run(p, all, words("x", 100)); why != placement.ByLoad {
		t.Errorf("by %s", why)
	}
}

// TestTheEngineKnowsBetter: an engine whose cache is far smaller than was believed
// says so, and what it no longer has is not counted on.
func TestTheEngineKnowsBetter(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b")
	const conversations = 300
	text := func(c int) string { return words(fmt.Sprintf("c%d-", c), 100) }
	for c := range conversations {
		s := p.Place(all, prompt(text(c)), placement.Work{Prompt: 100}, false)
		s.Started(10)
		s.Cached(200, 0) // new: nothing was believed, so nothing is wrong
		s.Leave()
	}
	// The oldest comes again, and its engine has nothing of it.
	s := p.Place(all, prompt(text(0)), placement.Work{Prompt: 100}, false)
	if s.Outcome != placement.ByPrefix {
		t.Fatalf("by %s", s.Outcome)
	}
	at := s.Endpoints[0]
	s.Started(10)
	s.Cached(200, 0)
	s.Leave()
	// The next oldest of that engine is not counted on; the newest still is.
	believed := func(c int) bool {
		s := p.Place(all, prompt(text(c)), placement.Work{Prompt: 100}, false)
		defer s.Leave()
		return s.Outcome == placement.ByPrefix && s.Endpoints[0] == at
	}
	if !believed(0) {
		t.Error("it was just computed there, and is not counted on")
	}
	newest := 0
	for c := conversations - 1; c > conversations-5; c-- {
		if believed(c) {
			newest++
		}
	}
	if newest != 2 {
		t.Errorf("%d of the newest four are counted on there, want 2", newest)
	}
	// Small differences mean nothing: an engine caches in blocks of its own.
	s = p.Place(all, prompt(text(0), "more"), placement.Work{Prompt: 100}, false)
	s.Started(10)
	s.Cached(200, 190)
	s.Leave()
	if !believed(0) {
		t.Error("a few tokens less, and nothing is counted on")
	}
}
