package handover_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// beat is how many tokens a row may be below what the engine had written, for each
// choice: those of one beat of the meter, and those on their way.
const beat = int64(250*time.Millisecond/pace) + 6

// written are the tokens that the engine has written of each live stream.
func written(s *stack.Stack) map[string]vllmsim.Truth {
	out := map[string]vllmsim.Truth{}
	for _, tr := range s.Sim.Truths() {
		if tr.EndedAt.IsZero() && !tr.Finished {
			out[tr.RequestID] = tr
		}
	}
	return out
}

// crashed checks the rows of streams that were cut by the death of their Envoy: at
// most a beat below what was written before it, and never above what was made.
func crashed(t *testing.T, s *stack.Stack, before map[string]vllmsim.Truth) {
	t.Helper()
	var rows map[string]ledger.Record
	stack.Eventually(t, 10*time.Second, "every row to be settled", func() bool {
		rows = s.Records()
		for id := range before {
			if r, ok := rows[id]; !ok || r.Open() {
				return false
			}
		}
		return true
	})
	for id, was := range before {
		r, made := rows[id], s.Truth(id)
		got, least := r.Counts.Completion, int64(was.WrittenTokens())-beat*int64(was.N)
		if r.Reason != ledger.EnvoyCrash {
			t.Errorf("%s: %s", id, r.Reason)
		}
		if strings.HasSuffix(was.Endpoint, "completions") { // the others say their use at their end
			if r.Quality != ledger.Partial || got < least || got > int64(made.Completion()) {
				t.Errorf("%s: recorded %d %s, written %d when Envoy died, made %d", id, got, r.Quality, was.WrittenTokens(), made.Completion())
			}
		}
	}
}

func TestEnvoyDiesUnderStreams(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{})
	n := times(16, 200)
	for range times(1, 20) {
		start(t, s, n, 8).whole(t)
		c := start(t, s, n, 300)
		time.Sleep(600 * time.Millisecond)
		before := written(s)
		s.Envoy.Kill()
		c.done.Wait()
		crashed(t, s, before)
		settled(t, s)
		restarted(s)
	}
}

// restarted starts Envoy again. Go's HTTP/2 client keeps a connection that it has
// opened in reserve and never used; after the death of Envoy one request would get
// its end for an answer.
func restarted(s *stack.Stack) {
	s.HTTP2.CloseIdleConnections()
	s.Envoy.Start()
	s.Ready()
}

// A client that saw the end of its answer while tollgate was away has its row, also
// when Envoy dies before tollgate is back: it is in a file by then.
func TestBothDieAfterTheClientSawTheEnd(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{})
	n := times(16, 200)
	for range times(1, 20) {
		short, long := start(t, s, n, 30), start(t, s, n, 400)
		s.Tollgate.Kill()
		short.done.Wait()
		time.Sleep(300 * time.Millisecond)
		before := written(s)
		s.Envoy.Kill()
		long.done.Wait()
		s.Tollgate.Start()
		restarted(s)
		short.whole(t)
		crashed(t, s, before)
		settled(t, s)
	}
}

func TestTwoEnvoysAtOneTollgate(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{})
	other := s.AnotherEnvoy()
	stack.Eventually(t, 10*time.Second, "both meters to be connected", func() bool { return s.Metric("tollgate_meters_connected") == 2 })
	here := start(t, s, 12, 120)
	there := start(t, other, 12, 300)
	time.Sleep(400 * time.Millisecond)
	before := map[string]vllmsim.Truth{}
	for _, cl := range there.clients {
		before[cl.id] = s.Truth(cl.id)
	}
	other.Envoy.Kill()
	there.done.Wait()
	crashed(t, s, before)
	here.whole(t)
	settled(t, s)
	if a := s.Post(stack.ChatPath, stack.Chat(true, 5, "")); a.StatusCode != http.StatusOK {
		t.Errorf("after another Envoy's death: %d %s", a.StatusCode, a.Bytes)
	}
}
