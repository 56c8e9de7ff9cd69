package placement_test

import (
	"fmt"
	"testing"

	"tollgate/internal/placement"
)

// BenchmarkPlace is the whole choice for a prompt of so many tokens among eight
// engines: its blocks, the match in every cache, the seat, the cache's new blocks,
// and what is given back. Four bytes are one token.
func BenchmarkPlace(b *testing.B) {
	for _, tokens := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(tokens), func(b *testing.B) {
			p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
			all := engines("a", "b", "c", "d", "e", "f", "g", "h")
			// The caches are full of other prompts, so that nothing is warm by chance.
			for i := range 800 {
				s := p.Place(all, prompt(words(fmt.Sprint("other", i, "-"), 20_000)), placement.Work{Prompt: 100}, false)
				s.Started(1)
				s.Leave()
			}
			messages := make([][]byte, 0, tokens/200+1)
			for i := 0; len(messages) < cap(messages); i++ {
				messages = append(messages, []byte(words(fmt.Sprint(i), 1000))[:800])
			}
			place := func() {
				pr := placement.NewPrompt("m")
				for _, m := range messages {
					pr.Text(m)
					pr.End()
				}
				s := p.Place(all, pr, placement.Work{Prompt: int64(tokens)}, false)
				s.Started(1)
				s.Leave()
			}
			place()
			b.SetBytes(int64(4 * tokens))
			b.ReportAllocs()
			for b.Loop() {
				place()
			}
		})
	}
}

// TestABlockAllocatesNothing: a long prompt costs no more allocations than a short one.
func TestABlockAllocatesNothing(t *testing.T) {
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	all := engines("a", "b", "c", "d")
	count := func(messages int) float64 {
		text := make([][]byte, messages)
		for i := range text {
			text[i] = []byte(words(fmt.Sprint(i), 100))
		}
		place := func() {
			pr := placement.NewPrompt("m")
			for _, m := range text {
				pr.Text(m)
				pr.End()
			}
			s := p.Place(all, pr, placement.Work{Prompt: 100}, false)
			s.Started(1)
			s.Leave()
		}
		for range 10 {
			place()
		}
		return testing.AllocsPerRun(200, place)
	}
	short, long := count(1), count(500)
	// The race detector empties pools at random, and a prompt's memory then grows in
	// ten steps; 2,500 blocks would show.
	if short > 5 || long > short+20 {
		t.Errorf("%v allocations for a short prompt, %v for a long one", short, long)
	}
}
