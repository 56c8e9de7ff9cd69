package meterlink

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"tollgate/internal/metertest"
)

// TestBothSpeakOfTheSameRecord reads the lines of 20,000 records, as odd as they may be, which
// the meter inside Envoy has written.
func TestBothSpeakOfTheSameRecord(t *testing.T) {
	const records = 20_000
	feed := metertest.Feed(t)
	seed := strconv.FormatUint(rand.Uint64(), 10)
	out, err := exec.CommandContext(t.Context(), feed, "records", seed, strconv.Itoa(records)).Output()
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); read++ {
		line := sc.Text()
		if !sc.Scan() {
			t.Fatal("a record without what stands in it")
		}
		verb, rest, _ := strings.Cut(line, " ")
		r, err := readRecord(words([]byte(rest)))
		if err != nil || verb != "e" {
			t.Fatalf("seed %s: %q: %v", seed, line, err)
		}
		if got := inWords(r); got != sc.Text() {
			t.Fatalf("seed %s: %q\nread:  %s\nmeant: %s", seed, line, got, sc.Text())
		}
	}
	if read != records {
		t.Errorf("%d records were read", read)
	}
}

// inWords writes a record as meter/feed does.
func inWords(r Record) string {
	p := r.Report
	list := func(v any) string { return strings.ReplaceAll(fmt.Sprint(v), " ", ", ") }
	return fmt.Sprintf("%s %s %d %d %d %d %d %d %s %d %d %d %s %d %d %d x%x x%x", r.Lease, r.Why, p.End, r.Status,
		p.Counts.Prompt, p.Counts.Completion, p.Counts.Cached, p.Counts.Reasoning, list([]bool{p.Seen, p.Final, r.Encoded, r.Unread}),
		p.TextBytes, p.Deltas, r.Delivered, list(p.Anomalies), r.First.Microseconds(), r.Last.Microseconds(), r.Flags, r.Details, r.Engine)
}
