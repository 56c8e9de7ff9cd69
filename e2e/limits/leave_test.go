package limits_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// leave asks for an answer that is not streamed and hangs up after a while. It
// returns the request id when the engine had it.
func leave(t *testing.T, s *stack.Stack, id, body string, after time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+stack.ChatPath, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+secret(id))
	req.Header.Set("Content-Type", "application/json")
	if resp, err := s.HTTP1.Do(req); err == nil {
		_ = resp.Body.Close()
	}
}

// TestWhoLeavesPaysForWhatWasMade hangs up just before the end of answers that
// are not streamed: alone, several at once, beside others.
func TestWhoLeavesPaysForWhatWasMade(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("leaver", "", "crowd", "", "other", "")})
	body := stack.Chat(false, 1500, `"tokens":1500,"delay_ms":2`)
	check := func(what, id string) {
		t.Helper()
		s.Idle(10 * time.Second)
		var charged, made int64
		for request, r := range s.Records() {
			if r.KeyID != id {
				continue
			}
			r = s.RecordWhen(request, "named", ended)
			if r.Reason != ledger.ClientAbort || r.Quality != ledger.Estimated {
				t.Errorf("%s: %s %s", what, r.Reason, r.Quality)
			}
			charged += r.Counts.Completion
			made += int64(s.Truth(request).Completion())
		}
		if off := float64(charged)/float64(made) - 1; made < 100 || off < -0.5 || off > 0.5 {
			t.Errorf("%s: charged %d, the engine made %d", what, charged, made)
		}
		t.Logf("%s: charged %d, the engine made %d", what, charged, made)
	}
	leave(t, s, "leaver", body, 1500*time.Millisecond) // the first of all
	check("the first request", "leaver")

	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 { // others stream, and get whole answers
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					ask(s, "other", stack.Chat(true, 100, `"delay_ms":3`))
					ask(s, "other", stack.Chat(false, 100, `"delay_ms":3`))
				}
			}
		})
	}
	var crowd sync.WaitGroup
	for range 4 {
		crowd.Go(func() { leave(t, s, "crowd", body, 2*time.Second) })
	}
	crowd.Wait()
	close(stop)
	wg.Wait()
	check("four at once beside others", "crowd")
}

// leaver is one who hangs up before a whole answer, and who is there meanwhile.
type leaver struct {
	seqs   int      // that the engine runs at once; 0: no bound
	beside []string // what others ask for, over and over, before it comes
	queued []string // what others ask for once it runs
	body   string
}

// TestNothingElseMovesWhatALeaverPays: beside a neighbour's load, with an engine
// that hangs and with a queue, too, the bill is what the engine made.
func TestNothingElseMovesWhatALeaverPays(t *testing.T) {
	t.Parallel()
	body := stack.Chat(false, 3000, `"tokens":3000,"delay_ms":4`)
	for name, l := range map[string]leaver{
		"beside streams":  {beside: []string{stack.Chat(true, 300, `"delay_ms":5`), stack.Chat(true, 200, `"delay_ms":3`)}, body: body},
		"beside answers":  {beside: []string{stack.Chat(false, 250, `"delay_ms":4`), stack.Chat(false, 50, `"delay_ms":6`)}, body: body},
		"a hung engine":   {body: stack.Chat(false, 3000, `"tokens":3000,"delay_ms":4,"pause_after":200`)},
		"never an answer": {body: stack.Chat(false, 3000, `"hang":true`)},
		"before a queue":  {seqs: 1, queued: []string{stack.Chat(true, 50, `"delay_ms":5`), stack.Chat(false, 50, `"delay_ms":5`)}, body: body},
		"in the queue":    {seqs: 1, beside: []string{stack.Chat(false, 1400, `"delay_ms":5`)}, body: body},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stack.Start(t, stack.Options{Keys: keys("leaver", "", "other", ""), Sim: vllmsim.Options{MaxNumSeqs: l.seqs}})
			l.run(t, s)
			s.Idle(10 * time.Second)
			for request, r := range s.Records() {
				if r.KeyID != "leaver" {
					continue
				}
				r = s.RecordWhen(request, "named", ended)
				charged, made := r.Counts.Completion, int64(s.Truth(request).Completion())
				t.Logf("%s: charged %d, the engine made %d", name, charged, made)
				if off := charged - made; max(off, -off) > made/10+20 {
					t.Errorf("%s: charged %d, the engine made %d", name, charged, made)
				}
			}
		})
	}
}

// run returns when everybody is gone.
func (l leaver) run(t *testing.T, s *stack.Stack) {
	t.Helper()
	running := func() {
		t.Helper()
		stack.Eventually(t, 5*time.Second, "a request to run", func() bool { return s.Sim.Stats().Running > 0 })
	}
	var all sync.WaitGroup
	defer all.Wait()
	stop := make(chan struct{})
	for _, body := range l.beside {
		all.Go(func() {
			for {
				ask(s, "other", body)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	if len(l.beside) > 0 {
		running()
	}
	all.Go(func() {
		defer close(stop)
		leave(t, s, "leaver", l.body, 3*time.Second)
	})
	if len(l.queued) > 0 {
		running()
	}
	for _, body := range l.queued {
		all.Go(func() { ask(s, "other", body) })
	}
}

// TestAQuotaHoldsAgainstWhoLeaves is the same as an attack.
func TestAQuotaHoldsAgainstWhoLeaves(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("leaver", `"quota":2000`)})
	body := stack.Chat(false, 1500, `"tokens":1500,"delay_ms":1`)
	for range 12 {
		leave(t, s, "leaver", body, 1200*time.Millisecond)
		s.Idle(10 * time.Second)
	}
	made := int64(0)
	for request := range s.Records() {
		if truth, ok := s.Sim.Truth(request); ok {
			made += int64(truth.Completion())
		}
	}
	if made > 2000*3/2 {
		t.Errorf("the engine made %d tokens for a quota of 2000", made)
	}
	t.Logf("made %d, charged %d of 2000", made, spent(s, "leaver"))
}
