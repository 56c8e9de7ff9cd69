package meter

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// spilled is what is in the spill file, "" where there is none.
func (r *rig) spilled() string {
	names, err := filepath.Glob(filepath.Join(r.dir, "run", "meter-*.spill"))
	if err != nil || len(names) == 0 {
		return ""
	}
	b, _ := os.ReadFile(names[0])
	return string(b)
}

// TestFailures breaks what stands around the meter, and the meter.
func TestFailures(t *testing.T) {
	lib := library(t)
	t.Run("an end waits for its record, and nothing before it does", func(t *testing.T) { testHold(t, lib) })
	t.Run("a tollgate that dies cuts nothing and loses nothing", func(t *testing.T) { testAway(t, lib) })
	t.Run("Envoy dies while tollgate is dead", func(t *testing.T) { testBothDead(t, lib) })
	t.Run("where no record can be written an end is no end", func(t *testing.T) { testNowhere(t, lib) })
	t.Run("a tollgate of another version", func(t *testing.T) { testVersion(t, lib) })
	t.Run("where records cannot go on there is room for so many", func(t *testing.T) { testFull(t, library(t, "--fault")) })
	t.Run("a meter that breaks cuts its stream alone", func(t *testing.T) { testPanic(t, library(t, "--fault")) })
}

func testHold(t *testing.T, lib string) {
	t.Helper()
	r := start(t, lib, "process")
	p := r.listen("welcome 1", false)
	lease := r.lease()
	resp, err := r.send(t.Context(), ask{lease: lease, plan: bare, reply: stream(2, 20*time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	next := func() string {
		s, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, _ = lines.ReadString('\n')
		return s
	}
	for i := range 2 {
		if got := next(); !strings.HasPrefix(got, "data: {") {
			t.Fatalf("event %d is %q", i, got)
		}
	}
	p.wait("e " + lease)
	asked := time.Now()
	end := make(chan time.Time, 1)
	go func() {
		_, _ = lines.ReadString('\n')
		end <- time.Now()
	}()
	select {
	case <-end:
		t.Error("the end did not wait for its record")
	case <-time.After(300 * time.Millisecond):
	}
	p.say("a " + lease)
	if waited := (<-end).Sub(asked); waited > 1500*time.Millisecond {
		t.Errorf("the end came %v after its record", waited)
	}
	if s := r.spilled(); s != "" {
		t.Errorf("the file has %q", s)
	}
}

func testAway(t *testing.T, lib string) {
	t.Helper()
	r := start(t, lib, "power")
	p := r.listen("welcome 1", true)
	long := r.lease()
	running := r.background(ask{lease: long, plan: plain, reply: stream(150, 10*time.Millisecond)})
	p.wait("s " + long + " r")
	p.stop()
	short := r.lease()
	if got := r.get(ask{lease: short, plan: plain, reply: stream(3, 0)}); got.err != nil || got.body != stripped(3)+done {
		t.Errorf("got %+v", got)
	}
	eventually(t, "the file has the running one", func() bool { return strings.Contains(r.spilled(), "s "+long+" r 7 ") })
	if !strings.Contains(r.spilled(), "e "+short+" end done 200 7 3 ") {
		t.Errorf("the file has %q", r.spilled())
	}
	p = r.listen("welcome 1", true)
	if p.find("e "+short) == "" || p.find("s "+long) == "" {
		t.Errorf("the list is %q", p.lines)
	}
	if got := <-running; got.err != nil || got.body != stripped(150)+done {
		t.Errorf("the running one got %d bytes, %v", len(got.body), got.err)
	}
	if e := record(t, p.wait("e "+long)); e["completion"] != "150" {
		t.Errorf("the running one: %v", e)
	}
	eventually(t, "the file is gone", func() bool { return r.spilled() == "" })
}

func testBothDead(t *testing.T, lib string) {
	t.Helper()
	r := start(t, lib, "process")
	p := r.listen("welcome 1", true)
	p.stop()
	lease, left := r.lease(), r.lease()
	if got := r.get(ask{lease: lease, plan: plain, reply: stream(3, 0)}); got.err != nil {
		t.Errorf("got %+v", got)
	}
	_ = r.get(ask{lease: left, plan: plain, reply: &stack.Reply{ContentType: "text/event-stream", Pieces: stream(2, 0).Pieces[:2], End: "fin"}})
	eventually(t, "the file has both", func() bool { return strings.Contains(r.spilled(), "e "+left+" ") })
	_ = r.envoy.Process.Kill() // the rig expects no end by itself
	r.killed = true
	<-r.ended
	if s := r.spilled(); !strings.Contains(s, "e "+lease+" end done 200 7 3 ") || !strings.HasSuffix(s, "\n") {
		t.Errorf("the file has %q", s)
	}
}

func testNowhere(t *testing.T, lib string) {
	t.Helper()
	r := start(t, lib, "process")
	if err := os.Remove(filepath.Join(r.dir, "run")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	got := r.get(ask{lease: r.lease(), plan: plain, reply: stream(3, 0)})
	if got.err == nil || strings.Contains(got.body, done) {
		t.Errorf("got %+v", got)
	}
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("cut after %v", took)
	}
}

// testFull fills the outbox of a library that has room for eight records.
func testFull(t *testing.T, lib string) {
	t.Helper()
	r := start(t, lib, "process")
	p := r.listen("welcome 1", false)
	var leases []string
	for range 8 {
		leases = append(leases, r.lease())
		if got := r.get(ask{lease: leases[len(leases)-1], plan: plain, reply: reply(429, "application/json", "{}")}); got.status != 429 {
			t.Errorf("got %+v", got)
		}
	}
	p.wait("e " + leases[7])
	if got := r.get(ask{lease: r.lease(), plan: plain, reply: stream(1, 0)}); got.status != 503 {
		t.Errorf("without room: %+v", got)
	}
	for _, lease := range leases {
		p.say("a " + lease)
	}
	eventually(t, "there is room again", func() bool {
		return r.get(ask{lease: r.lease(), plan: plain, reply: reply(429, "application/json", "{}")}).status == 429
	})
}

func testVersion(t *testing.T, lib string) {
	t.Helper()
	r := start(t, lib, "process")
	p := r.listen("bye too%20new", false)
	p.wait("hello")
	// The stream is ext_proc's then: no meter is named, and nothing is held.
	eventually(t, "requests pass", func() bool {
		got := r.get(ask{lease: r.lease(), reply: stream(1, 0)})
		return got.status == 200 && got.header.Get("x-by") == "" && got.body == string(chunk("word", 7, 1))+done
	})
	p.never("s ")
}

func testPanic(t *testing.T, lib string) {
	t.Helper()
	r := start(t, lib, "process")
	p := r.listen("welcome 1", true)
	other, bad := r.lease(), r.lease()
	running := r.background(ask{lease: other, plan: plain, reply: stream(50, 10*time.Millisecond)})
	p.wait("s " + other + " r")
	pieces := slices.Concat(stream(2, 0).Pieces[:2], [][]byte{[]byte("data: tollgate-meter-fault\n\n"), []byte(done)})
	got := r.get(ask{lease: bad, plan: plain, reply: &stack.Reply{ContentType: "text/event-stream", Pieces: pieces, Gap: 30 * time.Millisecond}})
	if got.err == nil || got.body != stripped(2) {
		t.Errorf("got %+v", got)
	}
	if e := record(t, p.wait("e "+bad)); e["why"] != "panic" || e["completion"] != "2" {
		t.Errorf("the record is %v", e)
	}
	if got := <-running; got.err != nil || got.body != stripped(50)+done {
		t.Errorf("the other stream got %d bytes, %v", len(got.body), got.err)
	}
	if !strings.Contains(r.log(), "the meter has failed at") {
		t.Error("Envoy's log does not say where")
	}
	eventually(t, "it is counted", func() bool { return strings.Contains(p.last("i "), " panics=1 ") })
}
