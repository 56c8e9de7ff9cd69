package usage_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"tollgate/internal/metertest"
	"tollgate/internal/usage"
)

// rustMeter is the meter of meter/core behind a pipe.
type rustMeter struct {
	t *testing.T
	w *bufio.Writer
	r *bufio.Reader
}

// startRust builds meter/feed and starts it. Without cargo the test is skipped.
func startRust(t *testing.T) *rustMeter {
	t.Helper()
	feed := metertest.Feed(t)
	// The process ends with its input, after the test: its context would kill it before.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), feed)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("meter/feed: %v", err)
		}
	})
	return &rustMeter{t: t, w: bufio.NewWriter(in), r: bufio.NewReader(out)}
}

func (m *rustMeter) word(n int) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(n))
	_, _ = m.w.Write(b[:])
}

func (m *rustMeter) blob() []byte {
	m.t.Helper()
	var n [4]byte
	if _, err := io.ReadFull(m.r, n[:]); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, binary.LittleEndian.Uint32(n[:]))
	if _, err := io.ReadFull(m.r, b); err != nil {
		m.t.Fatal(err)
	}
	return b
}

// feed returns what the meter forwards of an answer, and its report in words.
func (m *rustMeter) feed(o usage.Options, pieces [][]byte) (forward []byte, report string) {
	m.t.Helper()
	m.word(int(o.Format) | bit(o.SSE)<<3 | bit(o.StripFinal)<<4 | bit(o.StripRunning)<<5 | bit(o.Encoded)<<6)
	m.word(o.Choices)
	m.word(o.Prompts)
	m.word(len(pieces))
	for _, p := range pieces {
		m.word(len(p))
		_, _ = m.w.Write(p)
	}
	if err := m.w.Flush(); err != nil {
		m.t.Fatal(err)
	}
	forward = m.blob()
	return forward, string(m.blob())
}

// compare fails the test where the two meters differ, and else returns what
// both forwarded and reported.
func (m *rustMeter) compare(what string, o usage.Options, body []byte, pieces [][]byte) (forward []byte, report string) {
	m.t.Helper()
	want, wantReport := feedGo(o, pieces)
	got, gotReport := m.feed(o, pieces)
	if !bytes.Equal(got, want) || gotReport != wantReport {
		m.t.Fatalf("%s, %+v, %d pieces of %q\nthis package: %q\n  %s\nmeter/core:   %q\n  %s", what, o, len(pieces), body, want, wantReport, got, gotReport)
	}
	return want, wantReport
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// feedGo is feed of the meter in this package.
func feedGo(o usage.Options, pieces [][]byte) (forward []byte, report string) {
	m := usage.NewMeter(o)
	for i, p := range pieces {
		f, _ := m.Feed(p, i+1 == len(pieces))
		forward = append(forward, f...)
	}
	p := m.Report()
	anomalies := strings.ReplaceAll(fmt.Sprint(p.Anomalies), " ", ", ")
	return forward, fmt.Sprintf("%d %d %d %d %d %d %d %d %d %s %d %d %d", p.Counts.Prompt, p.Counts.Completion, p.Counts.Cached, p.Counts.Reasoning,
		bit(p.Seen), bit(p.Final), p.End, p.TextBytes, p.Deltas, anomalies, bit(m.Ended()), bit(m.Unread()), bit(m.Follows()))
}

// damage changes some bytes.
func (g generator) damage(body []byte) {
	for range 1 + g.IntN(4) {
		if len(body) > 0 {
			body[g.IntN(len(body))] = byte(g.Uint32())
		}
	}
}

// split cuts a body into chunks, by one of three habits, now and then with an
// empty one at the end.
func (g generator) split(body []byte) [][]byte {
	var pieces [][]byte
	switch g.IntN(3) {
	case 0:
		pieces = bytewise(body)
	case 1:
		pieces = [][]byte{body}
	default:
		for rest := body; len(rest) > 0; {
			n := 1 + g.IntN(min(len(rest), 40))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
	}
	if len(pieces) == 0 || g.IntN(3) == 0 {
		pieces = append(pieces, nil)
	}
	return pieces
}

// TestBothMetersAgree feeds generated and damaged answers, cut at random, to
// this package and to the meter inside Envoy: what they forward and what they
// report must be the same, byte for byte.
func TestBothMetersAgree(t *testing.T) {
	other := startRust(t)
	seed := rand.Uint64()
	g := generator{rand.New(rand.NewPCG(seed, 9))}
	n := 200_000 / thin
	withUsage, stripped, unread := 0, 0, 0
	for k := range n {
		o := options(uint16(g.Uint32()), g.IntN(4) > 0)
		o.Encoded = g.IntN(200) == 0
		body := []byte(g.document())
		if o.SSE {
			body = []byte(g.stream())
		}
		if g.IntN(20) == 0 {
			g.damage(body)
		}
		pieces := g.split(body)
		want, report := other.compare(fmt.Sprintf("seed %d, answer %d", seed, k), o, body, pieces)
		withUsage += bit(!strings.HasPrefix(report, "-1 -1"))
		stripped += bit(!bytes.Equal(want, body))
		unread += bit(strings.HasSuffix(report, " 1 0") || strings.HasSuffix(report, " 1 1"))
	}
	if withUsage < n/10 || stripped < n/50 || unread < n/100 {
		t.Errorf("of %d answers only %d had usage, %d were stripped and %d could not be read: the generator says too little", n, withUsage, stripped, unread)
	}
	t.Logf("%d answers equal, %d with usage, %d stripped, %d unreadable", n, withUsage, stripped, unread)
}

// TestBothMetersAgreeOnRecordings does the same with the answers recorded from
// a real vLLM, whole and byte by byte, with every way to strip.
func TestBothMetersAgreeOnRecordings(t *testing.T) {
	other := startRust(t)
	for _, rec := range loadAll(t) {
		for _, o := range variants(rec.o) {
			other.compare(rec.name, o, rec.body, [][]byte{rec.body})
			other.compare(rec.name, o, rec.body, bytewise(rec.body))
		}
	}
}
