package usage_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"tollgate/internal/usage"
)

const (
	mebibyte = 1 << 20
	little   = 64 << 10 // what the test binary itself may grow by meanwhile
)

// heap returns the live heap after feeding, with the meter still in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// TestMemoryIsBounded feeds what grows without end somewhere else: a line, an
// event, the number of events, depth, keys, numbers, choices.
func TestMemoryIsBounded(t *testing.T) {
	strips := usage.Options{SSE: true, StripFinal: true, StripRunning: true}
	many := func(s string) []byte { return bytes.Repeat([]byte(s), mebibyte/len(s)) }
	for _, tc := range []struct {
		name  string
		o     usage.Options
		begin string
		piece []byte
		times int
		bound int64
	}{
		{"stream of 1 GiB without a line end", usage.Options{SSE: true}, "", many("x"), 1024, little},
		{"the same with a strip", strips, "", many("x"), 256, 8 * mebibyte},
		{"text of 64 MiB", usage.Options{SSE: true}, `data: {"choices":[{"index":0,"delta":{"content":"`, many("x"), 64, little},
		{"event of 64 MiB in short lines of data with a strip", strips, `data: {"choices":[{"index":0,"delta":{"content":"` + "\n", many("data: xxxxxxxx\n"), 64, 8 * mebibyte},
		{"comments", strips, "", many(": \n"), 16, 8 * mebibyte},
		{"a million tiny events", strips, "", many("data: {}\n\n"), 10, little},
		{"a million carriage returns", strips, "", many("\r"), 4, little},
		{"event names", usage.Options{SSE: true, Format: usage.Responses}, "event: ", many("x"), 16, little},
		{"depth", usage.Options{SSE: true}, `data: {"x":`, many(`[{"x":`), 16, little},
		{"depth of what is read", usage.Options{SSE: true}, `data: {"choices":`, many(`[`), 16, little},
		{"a key", usage.Options{SSE: true}, `data: {"`, many(`usage`), 16, little},
		{"an escaped key", usage.Options{SSE: true}, `data: {"`, many(`\u0061`), 4, little},
		{"a number", usage.Options{SSE: true}, `data: {"choices":[],"usage":{"completion_tokens":1`, many(`1`), 16, little},
		{"choices", usage.Options{SSE: true, Choices: 3}, `data: {"choices":[`, many(`{"index":99999},`), 16, little},
		{"body of 1 GiB", usage.Options{}, `{"choices":[{"index":0,"message":{"content":"`, many("x"), 1024, little},
		{"body of keys", usage.Options{}, `{"a":0`, many(`,"a":0`), 16, little},
		{"body of usage keys", usage.Options{}, `{"a":0`, many(`,"usage":{"prompt_tokens":1}`), 16, little},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := usage.NewMeter(tc.o)
			m.Feed([]byte(chunkRecorded), false)
			before := heap()
			m.Feed([]byte(tc.begin), false)
			for range max(1, tc.times/thin) {
				m.Feed(tc.piece, false)
			}
			grown := int64(heap()) - int64(before)
			runtime.KeepAlive(m)
			if grown > tc.bound {
				t.Errorf("grew by %d bytes, want at most %d", grown, tc.bound)
			}
		})
	}
}

func TestResetGivesLargeBuffersBack(t *testing.T) {
	o := usage.Options{SSE: true, StripFinal: true}
	m := usage.NewMeter(o)
	before := heap()
	m.Feed(bytes.Repeat([]byte("x"), mebibyte-1), false)
	m.Feed([]byte("\n\n"), false)
	m.Reset(o)
	if grown := int64(heap()) - int64(before); grown > 64<<10 {
		t.Errorf("kept %d bytes", grown)
	}
	runtime.KeepAlive(m)
}

func TestAnOrdinaryChunkAllocatesNothing(t *testing.T) {
	for _, o := range []usage.Options{{SSE: true}, {SSE: true, StripFinal: true, StripRunning: true}, {}} {
		m := usage.NewMeter(o)
		chunk := []byte(chunkRecorded)
		a, b := chunk[:100], chunk[100:]
		got := testing.AllocsPerRun(100, func() {
			m.Reset(o)
			for range 3 {
				m.Feed(chunk, false)
				m.Feed(a, false)
				m.Feed(b, false)
				_ = m.Report()
			}
			m.Feed(nil, true)
		})
		if got != 0 {
			t.Errorf("%+v: got %v allocations, want none", o, got)
		}
	}
}

func TestEventTooLargeForAStripPassesWholeAndTheNextIsStripped(t *testing.T) {
	o := usage.Options{SSE: true, StripFinal: true, StripRunning: true}
	// Exactly at the bound an event is still stripped, one byte more and it
	// passes. A line feed behind the carriage return of its blank line, which may
	// come in another chunk, does not count.
	for _, tc := range []struct {
		over int
		end  string
		more int
	}{{0, "\n", 0}, {1, "\n", 0}, {0, "\r\n", 1}, {1, "\r\n", 1}, {0, "\r", 0}} {
		event := strings.ReplaceAll(large, "\n", tc.end)
		event = fmt.Sprintf(event, strings.Repeat("x", mebibyte+tc.over+tc.more-len(fmt.Sprintf(event, ""))))
		body := []byte(event + "data: " + running + "\n\ndata: [DONE]\n\n")
		m := usage.NewMeter(o)
		want, wantOut := feed(m, body)
		if want.Anomalies[usage.Oversize] != uint32(tc.over) || want.Counts.Completion != 2 || want.End != usage.Done {
			t.Errorf("%+v: got %+v", tc, want)
		}
		if got := bytes.Count(wantOut, []byte(`"usage"`)); got != tc.over {
			t.Errorf("%+v: got usage %d times", tc, got)
		}
		for _, at := range [][]int{{100}, {mebibyte - 1}, {mebibyte}, {mebibyte + 1}, {mebibyte + 2}, {mebibyte - 2, mebibyte - 1, mebibyte, mebibyte + 1}, {5, mebibyte / 2, mebibyte + 30}} {
			m.Reset(o)
			if got, out := feed(m, split(body, at...)...); got != want || !bytes.Equal(out, wantOut) {
				t.Errorf("%+v, split at %v: got %+v and %d bytes", tc, at, got, len(out))
			}
		}
	}
}

// large is an event with running usage, of any size.
const large = `data: {"choices":[{"index":0,"delta":{"content":"%s"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}` + "\n\n"
