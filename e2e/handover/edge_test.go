package handover_test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// TestEnvoyIsStoppedUnderStreams: without a drain its streams are cut. Their rows are
// what it said last, at most a beat below what was written.
func TestEnvoyIsStoppedUnderStreams(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{})
	c := start(t, s, 16, 300)
	time.Sleep(600 * time.Millisecond)
	before := written(s)
	s.Envoy.Signal(syscall.SIGTERM)
	c.done.Wait()
	s.Envoy.Wait(20 * time.Second) // it may die of its own fault when it stops under streams
	rows := map[string]ledger.Record{}
	stack.Eventually(t, 15*time.Second, "every row to be settled", func() bool {
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
		if r.Reason == ledger.Complete {
			t.Errorf("%s: %s", id, r.Reason)
		}
		least := int64(was.WrittenTokens()) - beat*int64(was.N)
		if got := r.Counts.Completion; strings.HasSuffix(was.Endpoint, "completions") && (got < least || got > int64(made.Completion())) {
			t.Errorf("%s: recorded %d %s, written %d before Envoy stopped, made %d", id, got, r.Quality, was.WrittenTokens(), made.Completion())
		}
	}
	settled(t, s)
	s.Envoy.Start()
	s.Ready()
	start(t, s, 4, 10).whole(t)
}

// TestAHungTollgateIsReplacedUnderStreams: the launcher kills a tollgate that does not
// answer, and starts another; streams go on.
func TestAHungTollgateIsReplacedUnderStreams(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{NoStart: true})
	l := stack.NewLauncher(t, s.Dir, s.URL)
	l.Cmd.Env = append(l.Cmd.Env, "TOLLGATE_METER_LIBRARY="+stack.MeterLibrary(t))
	l.Start()
	l.Ready(60 * time.Second)
	hung := l.Child("tollgate").PID
	c := start(t, s, 12, 400)
	if err := syscall.Kill(hung, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stack.Eventually(t, 30*time.Second, "another tollgate to run", func() bool {
		now := l.Child("tollgate").PID
		return now != 0 && now != hung
	})
	c.whole(t)
	settled(t, s)
	l.Signal(syscall.SIGTERM)
	if code := l.Exit(30 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestAQuotaThatNobodyWatches: while tollgate is away a stream runs over its key's
// quota; all of it is booked, and the key gets nothing more.
func TestAQuotaThatNobodyWatches(t *testing.T) {
	stack.NeedModule(t)
	const quota, tokens = 100, 250
	s := stack.Start(t, stack.Options{Keys: `[
  {"key": "` + stack.Key + `", "id": "ann", "user": "ann", "quota": 100},
  {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}
]`})
	a, _ := s.Open(s.HTTP1, stack.Key, stack.Chat(true, tokens, `"delay_ms":10`))
	if a.StatusCode != http.StatusOK {
		t.Fatalf("status %d", a.StatusCode)
	}
	id := a.RequestID()
	stack.Eventually(t, 5*time.Second, "the stream to run", func() bool { return s.Truth(id).WrittenTokens() > 5 })
	s.Tollgate.Kill()
	stack.Eventually(t, 15*time.Second, "the engine to be done", func() bool { return s.Truth(id).Finished })
	s.Tollgate.Start()
	s.Ready()
	r, made := s.Settled(id), int64(s.Truth(id).Completion())
	if r.Reason != ledger.Complete || r.Quality != ledger.Exact || r.Counts.Completion != made || made <= quota {
		t.Errorf("%s %s %d, the engine made %d of %d; want all of it, above the quota of %d", r.Reason, r.Quality, r.Counts.Completion, made, tokens, quota)
	}
	if a := s.Post(stack.ChatPath, stack.Chat(false, 1, "")); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the next request: %d", a.StatusCode)
	}
	settled(t, s)
}
