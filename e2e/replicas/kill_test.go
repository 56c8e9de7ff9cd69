package replicas_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"tollgate/e2e/stack"
)

const (
	// leaseLife is what a claimed lease lives without being renewed.
	leaseLife = 15 * time.Second
	// slack is what a busy machine may take to look.
	slack = time.Second
)

// ends is when each lease ends unless it is renewed, as Redis has it, in µs of
// its clock, and that clock.
func ends(t *testing.T, c rueidis.Client) (at []int64, now int64) {
	t.Helper()
	scored, err := c.Do(t.Context(), c.B().Zrange().Key("{tollgate}:leases").Min("0").Max("-1").Withscores().Build()).AsZScores()
	if err != nil {
		t.Fatal(err)
	}
	clock, err := c.Do(t.Context(), c.B().Time().Build()).AsIntSlice()
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range scored {
		at = append(at, int64(z.Score))
	}
	return at, clock[0]*1_000_000 + clock[1]
}

// hold opens a stream that pauses after five tokens until it is released, and
// tells how it ended.
func (p *pair) hold(s *stack.Stack, id string) (answer *stack.Answer, end <-chan error) {
	p.t.Helper()
	answer, _ = s.Open(s.HTTP1, secret(id), stack.Chat(true, 10, `"pause_after":5,"group":"`+id+`"`))
	ended := make(chan error, 1)
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		ended <- nil
		return answer, ended
	}
	go func() {
		text, err := io.ReadAll(answer.Body)
		if err == nil && !strings.Contains(string(text), "[DONE]") {
			err = io.ErrUnexpectedEOF
		}
		ended <- err
	}()
	return answer, ended
}

// TestADeadReplicasLeasesComeBack: kill -9 of a replica with live streams. What
// it held stays held until 15 s after it last said that it lives, and not
// longer; then the other replica has all of the limit.
func TestADeadReplicasLeasesComeBack(t *testing.T) {
	beside(t)
	const streams = 100
	p := startPair(t, calm, "concurrent: 100", keys("ann", "", "bob", ""))
	dead, other := p.edges[0], p.edges[1]
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{p.redis.Addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cut := p.fillSlots(dead, "ann", streams)
	opened, _ := ends(t, c)
	last := slices.Max(opened)
	stack.Eventually(t, 10*time.Second, "every lease to be renewed", func() bool {
		at, _ := ends(t, c)
		return len(at) == streams && slices.Min(at) > last
	})
	wantFull(t, other)

	dead.Tollgate.Kill()
	killed := time.Now()
	at, now := ends(t, c)
	if len(at) != streams {
		t.Fatalf("%d leases of %d streams", len(at), streams)
	}
	first, final := time.Duration(slices.Min(at)-now)*time.Microsecond, time.Duration(slices.Max(at)-now)*time.Microsecond
	if final > leaseLife || first < leaseLife-5*time.Second {
		t.Errorf("the leases end %v to %v after the death of their replica", first, final)
	}
	module := stack.Module(t)
	if !module { // the meter inside Envoy goes on without its replica
		for _, end := range cut {
			if err := within(t, end); err == nil {
				t.Error("a stream of the dead replica ended well")
			}
		}
	}
	p.watchReturn(other, killed, first, final)

	// All of the limit, and no more.
	living := p.fillSlots(other, "bob", streams)
	wantFull(t, other)
	stack.Eventually(t, 5*time.Second, "all streams to pause", func() bool { return p.sim.Stats().Groups["bob"].Running == streams })
	p.sim.Release()
	for _, end := range living {
		if err := within(t, end); err != nil {
			t.Errorf("a stream of the living replica: %v", err)
		}
	}
	if module {
		for _, end := range cut {
			if err := within(t, end); err != nil {
				t.Errorf("a stream that outlives its replica: %v", err)
			}
		}
	}
	dead.Tollgate.Start()
	dead.Ready()
	if r := shoot(dead, "ann", stack.Chat(false, 1, "")); r.code != http.StatusOK {
		t.Errorf("the replica that came back answers %d %s", r.code, r.why)
	}
	p.idle(time.Second)
}

// fillSlots holds n streams.
func (p *pair) fillSlots(s *stack.Stack, id string, n int) (ends []<-chan error) {
	p.t.Helper()
	for range n {
		a, end := p.hold(s, id)
		if a.StatusCode != http.StatusOK {
			p.t.Fatalf("stream %d of %s: %d", len(ends), id, a.StatusCode)
		}
		ends = append(ends, end)
	}
	return ends
}

// wantFull wants a replica to let nobody in.
func wantFull(t *testing.T, s *stack.Stack) {
	t.Helper()
	if r := shoot(s, "bob", stack.Chat(false, 1, "")); r.code != http.StatusTooManyRequests {
		t.Errorf("a replica lets in one too many: %d %s", r.code, r.why)
	}
}

// within waits for the end of a stream, which must not hang.
func within(t *testing.T, end <-chan error) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(patience):
		t.Fatal("a stream hangs")
		return nil
	}
}

// watchReturn watches how long the leases of a dead replica are there: until
// 15 s after the last renewal of each, and so for 15 s after its death at most.
func (p *pair) watchReturn(other *stack.Stack, killed time.Time, first, final time.Duration) {
	p.t.Helper()
	held := other.Metric("tollgate_leases_live")
	all := held
	kept, tried := time.Duration(0), false
	for held > 0 {
		<-time.After(50 * time.Millisecond)
		asked := time.Since(killed)
		held = other.Metric("tollgate_leases_live")
		if held == all {
			kept = asked
			// A refusal meanwhile: dead leases count as long as they may live.
			if !tried && asked > first/2 {
				tried = true
				wantFull(p.t, other)
			}
		}
		if asked > leaseLife+2*slack {
			p.t.Fatalf("%v leases are held %v after the death of their replica", held, asked)
		}
	}
	back := time.Since(killed)
	if back > leaseLife+slack || back < final-slack || back > final+slack {
		p.t.Errorf("all leases were back %v after the death, want %v", back, final)
	}
	if kept < first-slack || !tried {
		p.t.Errorf("the first leases were back %v after the death already, want %v", kept, first)
	}
	p.t.Logf("%v leases of a killed replica: last renewed %v to %v before its death; all there until %v, all back after %v",
		all, (leaseLife - final).Round(time.Millisecond), (leaseLife - first).Round(time.Millisecond), kept.Round(time.Millisecond), back.Round(time.Millisecond))
}
