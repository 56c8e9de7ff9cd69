package redisstore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTheOutageKeepsToItsTranscripts replays testdata/circuit.txt, which must hold
// every transition that there is.
func TestTheOutageKeepsToItsTranscripts(t *testing.T) {
	text, err := os.ReadFile("testdata/circuit.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for block := range strings.SplitSeq(string(text), "\n\n") {
		lines := strings.Split(strings.TrimSpace(block), "\n")
		if strings.HasPrefix(lines[0], "#") {
			continue
		}
		t.Run(lines[0], func(t *testing.T) {
			begun := 0
			c, start := newCircuit(0, func() { begun++ }), time.Now()
			for _, line := range lines[1:] {
				when, rest, _ := strings.Cut(line, " ")
				name, _, _ := strings.Cut(rest, ":")
				after, err := time.ParseDuration(when)
				e := slices.Index(eventNames[:], name)
				if err != nil || e < 0 {
					t.Fatalf("cannot read %q", line)
				}
				from := c.state()
				_, err = c.on(event(e), start.Add(after))
				seen[from.String()+", "+name] = true
				if got := describe(when, name, c, err); got != line {
					t.Fatalf("got  %s\nwant %s", got, line)
				}
			}
			if outages := strings.Count(block, "call failed: partitioned"); begun > outages || (begun == 0) != (outages == 0) {
				t.Errorf("outages that began: got %d", begun)
			}
		})
	}
	for from, row := range transitions {
		for e := range events {
			if _, legal := row[e]; legal && !seen[state(from).String()+", "+e.String()] {
				t.Errorf("no transcript has %s while %s", e, state(from))
			}
		}
	}
}

func describe(when, name string, c *circuit, err error) string {
	line := fmt.Sprintf("%s %s: %s", when, name, c.state())
	if pause := c.beforeProbe(); pause > 0 {
		line += fmt.Sprintf(" (%s)", pause)
	}
	if err != nil {
		line += ", error"
	}
	return line
}

// TestNoWalkLeavesTheOutage: whatever comes in whatever order, Redis decides only
// after everything was sent to it, and a closed store never decides again.
func TestNoWalkLeavesTheOutage(t *testing.T) { //nolint:gocyclo // one story, told in order
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(1, seed))
		now := time.Now()
		c := newCircuit(0, func() {})
		sent := true
		for range 100 {
			from, e := c.state(), event(random.IntN(int(closing)+1))
			if e == closing && random.IntN(20) > 0 {
				continue
			}
			now = now.Add(time.Duration(random.IntN(3000)) * time.Millisecond)
			changed, err := c.on(e, now)
			to := c.state()
			if changed != (from != to) || err != nil && changed {
				t.Fatalf("seed %d: %s while %s: changed %v to %s, %v", seed, e, from, changed, to, err)
			}
			switch {
			case to == partitioned:
				sent = false
			case from == handover && e == sentAll:
				sent = true
			}
			if to == shared && !sent || from == stopped && to != stopped || c.decidesHere() && to == shared {
				t.Fatalf("seed %d: %s while %s led to %s", seed, e, from, to)
			}
			if _, answering := c.outage(now); answering > 0 && (to == shared || to == partitioned) {
				t.Fatalf("seed %d: Redis answers for %v while %s", seed, answering, to)
			}
			if pause := c.beforeProbe(); pause > longestPause || c.decidesHere() && pause <= 0 {
				t.Fatalf("seed %d: pause of %v while %s", seed, pause, to)
			}
		}
	}
}
