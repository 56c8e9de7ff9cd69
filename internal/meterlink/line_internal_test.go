package meterlink

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/usage"
)

// escape writes a word as a meter does.
func escape(s string) string {
	if s == "" {
		return "-"
	}
	if s == "-" {
		return "%2D"
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 0x21 && c <= 0x7e && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// appendRecord writes a record as a meter does.
func appendRecord(b []byte, r *Record) []byte {
	end := ""
	for name, e := range ends {
		if e == r.Report.End {
			end = name
		}
	}
	bits := ""
	for _, bit := range []struct {
		letter string
		set    bool
	}{{"S", r.Report.Seen}, {"F", r.Report.Final}, {"E", r.Encoded}, {"U", r.Unread}} {
		if bit.set {
			bits += bit.letter
		}
	}
	if bits == "" {
		bits = "-"
	}
	var anomalies []string
	for _, a := range r.Report.Anomalies {
		anomalies = append(anomalies, fmt.Sprint(a))
	}
	us := func(d time.Duration) int64 {
		if d < 0 {
			return -1
		}
		return d.Microseconds()
	}
	c := r.Report.Counts
	return fmt.Appendf(b, "e %s %s %s %d %d %d %d %d %s %d %d %d %s %d %d %d %s %s", r.Lease, r.Why, end, r.Status,
		c.Prompt, c.Completion, c.Cached, c.Reasoning, bits, r.Report.TextBytes, r.Report.Deltas, r.Delivered,
		strings.Join(anomalies, ","), us(r.First), us(r.Last), r.Flags, escape(r.Details), escape(r.Engine))
}

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	for _, want := range []Record{
		{Lease: "01a2", Why: Ended, Status: 200, Report: usage.Report{Counts: usage.Counts{Prompt: 9, Completion: 3, Cached: -1, Reasoning: -1}, Seen: true, Final: true, End: usage.Done, TextBytes: 17, Deltas: 3}, Delivered: 1190, First: 9967 * time.Microsecond, Last: 10120 * time.Microsecond, Details: "via_upstream", Engine: "127.0.0.1:8000"},
		{Lease: "-a_", Why: Gone, Report: usage.Report{Counts: usage.None()}, First: -time.Microsecond, Last: 0, Flags: math.MaxInt64, Details: "upstream_reset_after_response_started{a b%\n}", Engine: "-"},
		{Lease: "x", Why: Panic, Encoded: true, Unread: true, Report: usage.Report{End: usage.EngineAborted, Anomalies: [usage.Anomalies]uint32{math.MaxUint32, 1, 2, 3, 4, 5, 6, 7, 8}}},
	} {
		line := appendRecord(nil, &want)
		got, err := readRecord(words(line)[1:])
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

// Whatever a line holds, reading it neither breaks nor gives nonsense, and what can be
// read is written and read again as the same.
func FuzzLine(f *testing.F) {
	for _, line := range []string{
		"e 01a214b95fed384560688c87945b9521 end done 200 9 3 -1 -1 SF 17 3 1190 0,0,0,0,0,0,0,0,0 9967 10120 0 via_upstream 127.0.0.1:8000",
		"e L gone open 0 -1 -1 -1 -1 - 0 0 0 0,0,0,0,0,0,0,0,1 -1 -1 4 downstream_remote_disconnect -",
		"s 01a214b95fed384560688c87945b9521 r 11 148 52211", "s L w -1 -1 0", "x L", "q L 100", ".",
		"hello 1 2a02-18eb6b1e164aac23 10754 9f2c41d07b3e", "i spilled=0 panics=0 hold=1,0,0,0,0,0,0",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if w := words(line); string(w[0]) == "e" {
			checkRecord(t, w[1:])
		} else {
			checkWords(t, w)
		}
	})
}

// checkRecord writes what was read of a record and reads it again.
func checkRecord(t *testing.T, w [][]byte) {
	t.Helper()
	r, err := readRecord(w)
	if err != nil {
		return
	}
	again, err := readRecord(words(appendRecord(nil, &r))[1:])
	if diff := cmp.Diff(r, again); err != nil || diff != "" {
		t.Errorf("%q is read again as another record (%v):\n%s", w, err, diff)
	}
}

// checkWords looks for nonsense in what was read of another line.
func checkWords(t *testing.T, w [][]byte) {
	t.Helper()
	var nonsense bool
	switch string(w[0]) {
	case "hello":
		h, err := readHello(w[1:])
		nonsense = err == nil && (!isName(h.instance) || h.version < 0)
	case "s":
		c, err := readCount(w[1:])
		nonsense = err == nil && (!isName(c.Lease) || min(c.Prompt, c.Completion) < -1 || c.Bytes < 0)
	case "x":
		_, _ = readUnplanned(w[1:])
	case "q":
		q, err := readQuestion(w[1:])
		nonsense = err == nil && q.used < 0
	case "i":
		_ = (&Metrics{of: map[string]counters{}}).told("2a-1", w[1:])
	}
	if nonsense {
		t.Errorf("%q was read as nonsense", w)
	}
}

// FuzzSpill: a file of anything is read to its end or refused; a torn last line says
// nothing.
func FuzzSpill(f *testing.F) {
	f.Add([]byte("s L r 1 2 3\ne L gone open 0 -1 -1 -1 -1 - 0 0 0 0,0,0,0,0,0,0,0,1 -1 -1 4 a -\nx M\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := readSpill(bytes.NewReader(data))
		if err != nil {
			return
		}
		for lease := range l.records {
			if _, both := l.counts[lease]; both {
				t.Errorf("%q has an end and goes on", lease)
			}
		}
	})
}

// Wherever the last line of a spill file was torn, the lines before it count and it
// does not: a number that was cut short is another number.
func TestATornSpillFile(t *testing.T) {
	first := Record{Lease: "L1", Why: Ended, Status: 200, Report: usage.Report{Counts: usage.Counts{Prompt: 5, Completion: 6, Cached: -1, Reasoning: -1}}}
	second := first
	second.Lease, second.Engine = "L2", "127.0.0.1:8000"
	whole := append(appendRecord(nil, &first), '\n')
	torn := append(appendRecord(nil, &second), '\n')
	for n := range len(torn) + 1 {
		l, err := readSpill(bytes.NewReader(append(bytes.Clone(whole), torn[:n]...)))
		want := 1
		if n == len(torn) {
			want = 2
		}
		if err != nil || len(l.records) != want {
			t.Fatalf("torn after %d bytes: %d records, want %d, %v", n, len(l.records), want, err)
		}
		if diff := cmp.Diff(first, l.records["L1"]); diff != "" {
			t.Errorf("torn after %d bytes (-want +got):\n%s", n, diff)
		}
	}
}
