package limit_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/limit"
)

func sample(change func(s *limit.Sample)) limit.Sample {
	s := limit.Sample{KeyID: "k", Model: "m", PromptBytes: 1000, N: 1, Prompts: 1, MaxTokens: -1}
	if change != nil {
		change(&s)
	}
	return s
}

func TestEstimateBeforeAnythingIsLearned(t *testing.T) {
	e := limit.NewEstimator(256)
	for name, c := range map[string]struct {
		change func(s *limit.Sample)
		want   limit.Estimate
	}{
		"a quarter token a byte":    {nil, limit.Estimate{Prompt: 250, Output: 256}},
		"rounded up":                {func(s *limit.Sample) { s.PromptBytes = 1 }, limit.Estimate{Prompt: 1, Output: 256}},
		"no prompt":                 {func(s *limit.Sample) { s.PromptBytes = 0 }, limit.Estimate{Prompt: 0, Output: 256}},
		"what the client allows":    {func(s *limit.Sample) { s.MaxTokens = 70 }, limit.Estimate{Prompt: 250, Output: 70}},
		"no output allowed":         {func(s *limit.Sample) { s.MaxTokens = 0 }, limit.Estimate{Prompt: 250, Output: 0}},
		"for each choice":           {func(s *limit.Sample) { s.N, s.Prompts, s.MaxTokens = 3, 4, 70 }, limit.Estimate{Prompt: 250, Output: 840}},
		"default for each choice":   {func(s *limit.Sample) { s.N, s.Prompts = 3, 4 }, limit.Estimate{Prompt: 250, Output: 3072}},
		"counts below 1 are 1":      {func(s *limit.Sample) { s.N, s.Prompts = 0, -1 }, limit.Estimate{Prompt: 250, Output: 256}},
		"not above the context":     {func(s *limit.Sample) { s.MaxTokens, s.Context = 9999, 100 }, limit.Estimate{Prompt: 100, Output: 100}},
		"context is for each":       {func(s *limit.Sample) { s.N, s.Prompts, s.Context = 2, 3, 80 }, limit.Estimate{Prompt: 240, Output: 480}},
		"negative bytes are none":   {func(s *limit.Sample) { s.PromptBytes = -8 }, limit.Estimate{Prompt: 0, Output: 256}},
		"a short default is capped": {func(s *limit.Sample) { s.Context = 200 }, limit.Estimate{Prompt: 200, Output: 200}},
	} {
		if diff := cmp.Diff(c.want, e.Estimate(sample(c.change))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAbsurdEstimatesDoNotOverflow(t *testing.T) {
	e := limit.NewEstimator(math.MaxInt64)
	for _, s := range []limit.Sample{
		{PromptBytes: math.MaxInt64, N: math.MaxInt, Prompts: math.MaxInt, MaxTokens: math.MaxInt64},
		{PromptBytes: math.MaxInt64, N: math.MaxInt, Prompts: math.MaxInt, MaxTokens: -1, Context: math.MaxInt64},
	} {
		e.Learn(s, math.MaxInt64, math.MaxInt64)
		got := e.Estimate(s)
		if got.Prompt <= 0 || got.Output <= 0 || got.Total() <= 0 || got.Total() > 1<<48 {
			t.Errorf("estimate of %+v: got %+v, total %d", s, got, got.Total())
		}
	}
}

func TestPromptRatioConverges(t *testing.T) {
	for _, ratio := range []float64{0.05, 0.22, 0.6, 1.5} {
		e := limit.NewEstimator(256)
		random := rand.New(rand.NewPCG(1, 1))
		for range 300 {
			s := sample(func(s *limit.Sample) { s.PromptBytes = 50 + random.Int64N(8000) })
			noise := 0.8 + 0.4*random.Float64()
			e.Learn(s, int64(float64(s.PromptBytes)*ratio*noise), -1)
		}
		got := float64(e.Estimate(sample(func(s *limit.Sample) { s.PromptBytes = 1e6 })).Prompt) / 1e6
		if math.Abs(got/ratio-1) > 0.06 {
			t.Errorf("ratio: got %.4f, want %.2f within 6 %%", got, ratio)
		}
		other := e.Estimate(sample(func(s *limit.Sample) { s.Model = "other" }))
		if other.Prompt != 250 {
			t.Errorf("prompt of another model: got %d, want 250", other.Prompt)
		}
	}
}

func TestOnePromptDoesNotSetTheRatio(t *testing.T) {
	e := limit.NewEstimator(256)
	for range 100 {
		e.Learn(sample(nil), 250, -1)
	}
	e.Learn(sample(func(s *limit.Sample) { s.PromptBytes = 1 }), 3000, -1) // an image behind a short address
	if got := e.Estimate(sample(nil)).Prompt; got < 245 || got > 260 {
		t.Errorf("prompt: got %d, want about 250", got)
	}
}

func TestOutputConvergesToTheNinetiethPercentile(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for name, draw := range map[string]func() int64{
		"constant":    func() int64 { return 333 },
		"zero":        func() int64 { return 0 },
		"uniform":     func() int64 { return random.Int64N(1000) },
		"exponential": func() int64 { return int64(random.ExpFloat64() * 400) },
		"two kinds":   func() int64 { return 20 + 3000*int64(random.IntN(5)/4) },
	} {
		e := limit.NewEstimator(0)
		var drawn []int64
		for range 400 {
			out := draw()
			drawn = append(drawn, out)
			e.Learn(sample(nil), 100, out)
		}
		recent := slices.Clone(drawn[len(drawn)-150:])
		slices.Sort(recent)
		// The last 100 or so decide; a quantile of so few is itself uncertain.
		low, high := recent[len(recent)*80/100], recent[len(recent)*97/100]
		got := e.Estimate(sample(nil)).Output
		if float64(got) < float64(low) || float64(got) > 1.13*float64(high) {
			t.Errorf("%s: got %d, want %d to %d and 13 %%", name, got, low, high)
		}
	}
}

func TestOutputIsLearnedForEachKeyAndModel(t *testing.T) {
	e := limit.NewEstimator(256)
	for range 10 {
		e.Learn(sample(nil), 100, 1000)
	}
	if got := e.Estimate(sample(nil)).Output; got < 1000 || got > 1125 {
		t.Errorf("output: got %d, want 1000 and up to 12.5 %%", got)
	}
	choices := e.Estimate(sample(func(s *limit.Sample) { s.N = 2 })).Output
	if choices < 2000 || choices > 2250 {
		t.Errorf("output of two choices: got %d, want 2000 and up to 12.5 %%", choices)
	}
	for name, change := range map[string]func(s *limit.Sample){
		"key":   func(s *limit.Sample) { s.KeyID = "other" },
		"model": func(s *limit.Sample) { s.Model = "other" },
	} {
		if got := e.Estimate(sample(change)).Output; got != 256 {
			t.Errorf("output of another %s: got %d, want the default", name, got)
		}
	}
}

func TestOutputFollowsANewHabit(t *testing.T) {
	e := limit.NewEstimator(0)
	for range 5000 {
		e.Learn(sample(nil), 100, 2000)
	}
	for range 300 {
		e.Learn(sample(nil), 100, 50)
	}
	if got := e.Estimate(sample(nil)).Output; got < 50 || got > 57 {
		t.Errorf("output: got %d, want 50 and up to 12.5 %%", got)
	}
}

func TestOutputThatWasCutOffLowersNothing(t *testing.T) {
	e := limit.NewEstimator(256)
	for range 50 {
		e.Learn(sample(func(s *limit.Sample) { s.MaxTokens, s.N = 1, 2 }), 100, 2)
		e.Learn(sample(nil), 100, -1)
	}
	if got := e.Estimate(sample(nil)).Output; got != 256 {
		t.Errorf("output: got %d, want the default", got)
	}
	for range 50 {
		e.Learn(sample(func(s *limit.Sample) { s.MaxTokens = 1000 }), 100, 400)
	}
	if got := e.Estimate(sample(nil)).Output; got < 400 || got > 450 {
		t.Errorf("output: got %d, want 400 and up to 12.5 %%, which ended by itself", got)
	}
}

func TestShortAnswersDoNotLowerTheReservation(t *testing.T) {
	e := limit.NewEstimator(256)
	for range 1000 {
		e.Learn(sample(nil), 100, 1)
	}
	if got := e.Estimate(sample(nil)).Output; got != 256 {
		t.Errorf("without a bound: got %d, want the default", got)
	}
	for bound, want := range map[int64]int64{70: 70, 1024: 1024, 32000: 1024} {
		if got := e.Estimate(sample(func(s *limit.Sample) { s.MaxTokens = bound })).Output; got != want {
			t.Errorf("with max_tokens %d: got %d, want %d", bound, got, want)
		}
	}
}

func TestALargeBoundReservesWhatIsUsual(t *testing.T) {
	e := limit.NewEstimator(256)
	bounded := sample(func(s *limit.Sample) { s.MaxTokens = 32000 })
	for range 20 {
		e.Learn(bounded, 100, 2000)
	}
	if got := e.Estimate(bounded).Output; got < 3000 || got > 3375 {
		t.Errorf("got %d, want half as much again as 2000, up to 12.5 %%", got)
	}
}

func TestALongAnswerRaisesTheEstimateAtOnce(t *testing.T) {
	for name, long := range map[string]func(e *limit.Estimator){
		"that ended":          func(e *limit.Estimator) { e.Learn(sample(nil), 100, 5000) },
		"that was cut off":    func(e *limit.Estimator) { e.Learn(sample(func(s *limit.Sample) { s.MaxTokens = 5000 }), 100, 5000) },
		"whose client left":   func(e *limit.Estimator) { e.Raise(sample(nil), 5000) },
		"one choice of three": func(e *limit.Estimator) { e.Learn(sample(func(s *limit.Sample) { s.N = 3 }), 100, 15000) },
	} {
		e := limit.NewEstimator(256)
		for range 100 {
			e.Learn(sample(nil), 100, 20)
		}
		long(e)
		if got := e.Estimate(sample(nil)).Output; got != 5000 {
			t.Errorf("after an answer %s: got %d, want 5000", name, got)
		}
		for range 20 { // and is forgotten when it stays alone
			e.Learn(sample(nil), 100, 20)
		}
		if got := e.Estimate(sample(nil)).Output; got != 256 {
			t.Errorf("20 short answers after one %s: got %d, want the default", name, got)
		}
	}
}

func TestATemplateIsNoRatio(t *testing.T) {
	e := limit.NewEstimator(256)
	for range 50 {
		e.Learn(sample(func(s *limit.Sample) { s.PromptBytes = 2 }), 30, -1)
	}
	for bytes, want := range map[int64]int64{2: 30, 8000: 2030} {
		got := e.Estimate(sample(func(s *limit.Sample) { s.PromptBytes = bytes })).Prompt
		if math.Abs(float64(got)/float64(want)-1) > 0.05 {
			t.Errorf("prompt of %d bytes: got %d, want %d", bytes, got, want)
		}
	}
}

// TestNoNeighbourMovesAnEstimate holds what another key can do to a reservation
// and to the count of a text: a tenth at most, whatever it sends, to a key that is
// new and to one that is known.
func TestNoNeighbourMovesAnEstimate(t *testing.T) {
	other := func(bytes int64) limit.Sample {
		return sample(func(s *limit.Sample) { s.KeyID, s.PromptBytes = "neighbour", bytes })
	}
	neighbours := map[string]func(e *limit.Estimator){
		"many short prompts": func(e *limit.Estimator) { e.Learn(other(2), 11, 1) },
		"dense prompts":      func(e *limit.Estimator) { e.Learn(other(8000), 8000, 4000) },
		"long words":         func(e *limit.Estimator) { e.Learn(other(8000), 600, 2000) },
		"dense text":         func(e *limit.Estimator) { e.LearnText(other(1), 2000, 2000) },
		"sparse text":        func(e *limit.Estimator) { e.LearnText(other(1), 2000, 100) },
	}
	for name, known := range map[string]int{"a new key": 0, "a known key": 30} {
		e := limit.NewEstimator(256)
		for range known {
			e.Learn(sample(nil), 230, 300)
			e.LearnText(sample(nil), 1000, 230)
		}
		look := func() (all [4]float64) {
			all[0] = float64(e.Estimate(sample(func(s *limit.Sample) { s.PromptBytes = 8000 })).Total())
			all[1] = float64(e.Estimate(sample(func(s *limit.Sample) { s.PromptBytes = 2 })).Total())
			all[2] = float64(e.Estimate(sample(func(s *limit.Sample) { s.PromptBytes = 2000 })).Prompt)
			all[3] = float64(e.Text(sample(nil), 800))
			return all
		}
		before := look()
		for what, send := range neighbours {
			for range 200 {
				send(e)
			}
			for i, now := range look() {
				if moved := now/before[i] - 1; math.Abs(moved) > 0.1 {
					t.Errorf("%s, after a neighbour's %s: estimate %d moved from %v to %v", name, what, i, before[i], now)
				}
			}
		}
	}
}

func TestManyKeysTeachANewOne(t *testing.T) {
	e := limit.NewEstimator(256)
	for i := range 200 {
		for range 20 {
			e.Learn(sample(func(s *limit.Sample) { s.KeyID = fmt.Sprint(i) }), 500, -1)
		}
	}
	if got := e.Estimate(sample(func(s *limit.Sample) { s.KeyID = "new" })).Prompt; got < 450 || got > 501 {
		t.Errorf("prompt of a new key: got %d, want nearly 500, as for the others", got)
	}
}

func TestTextIsNeverMoreTokensThanBytes(t *testing.T) {
	e := limit.NewEstimator(256)
	if got := e.Text(sample(nil), 80); got != 20 {
		t.Errorf("80 bytes at first: got %d, want 20", got)
	}
	for range 60 { // a short prompt that the engine calls 2,000 tokens
		e.Learn(sample(func(s *limit.Sample) { s.PromptBytes = 10 }), 2000, 20)
	}
	if got := e.Text(sample(nil), 80); got != 20 {
		t.Errorf("80 bytes after odd prompts: got %d, want 20", got)
	}
	for range 60 {
		e.LearnText(sample(nil), 80, 4000)
	}
	if got := e.Text(sample(nil), 80); got > 80 || got < 70 {
		t.Errorf("80 bytes where each byte is a token: got %d, want at most 80", got)
	}
}

func TestEstimatorIsBounded(t *testing.T) {
	e := limit.NewEstimator(256)
	for i := range 3 * limit.PairsKept {
		e.Learn(sample(func(s *limit.Sample) { s.KeyID, s.Model = fmt.Sprint(i), fmt.Sprint(i) }), 10, 10)
	}
	if models, pairs := e.Remembered(); models != limit.ModelsKept || pairs != limit.PairsKept {
		t.Errorf("remembered: got %d models and %d pairs, want %d and %d", models, pairs, limit.ModelsKept, limit.PairsKept)
	}
}

func TestEstimatorIsSafeForManyClients(t *testing.T) {
	e := limit.NewEstimator(256)
	var group sync.WaitGroup
	for client := range 8 {
		group.Go(func() {
			s := sample(func(s *limit.Sample) { s.KeyID = fmt.Sprint(client % 3) })
			for range 200 {
				e.Learn(s, 500, 400)
				e.Estimate(s)
			}
		})
	}
	group.Wait()
	if got := e.Estimate(sample(func(s *limit.Sample) { s.KeyID = "0" })); got.Output < 400 || got.Output > 450 || got.Prompt < 490 || got.Prompt > 501 {
		t.Errorf("estimate: got %+v, want 500 and 400", got)
	}
}

func BenchmarkEstimator(b *testing.B) {
	e := limit.NewEstimator(256)
	s := sample(nil)
	b.ReportAllocs()
	for b.Loop() {
		e.Learn(s, 250, 300)
		if e.Estimate(s).Total() == 0 {
			b.Fatal("no estimate")
		}
	}
}
