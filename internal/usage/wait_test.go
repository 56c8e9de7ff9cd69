package usage_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"tollgate/internal/usage"
)

const (
	ending = `{"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"completion_tokens":1}}`
	ended  = `{"choices":[{"index":0,"finish_reason":"stop"}]}`
	marked = `{"choices":[{"index":0,"finish_reason":"stop"}],"system_fingerprint":"f"}`
	totals = `{"choices":[],"usage":{"completion_tokens":1},"system_fingerprint":"f"}`
)

var stripsAll = usage.Options{SSE: true, StripFinal: true, StripRunning: true}

func TestFingerprintMovesAsItIs(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"in the middle", "data: " + ending + "\n\n" + `data: {"choices":[],"system_fingerprint":"f","usage":{"completion_tokens":1}}` + "\n\n", "data: " + marked + "\n\n"},
		{"first", "data: " + ending + "\n\n" + `data: {"system_fingerprint":"f","choices":[],"usage":{"completion_tokens":1}}` + "\n\n", "data: " + marked + "\n\n"},
		{"an object", "data: " + ending + "\n\n" + `data: {"choices":[],"usage":{},"system_fingerprint":{"a":[1,"}"]}}` + "\n\n", "data: " + ended[:len(ended)-1] + `,"system_fingerprint":{"a":[1,"}"]}}` + "\n\n"},
		{"null and an escaped key", "data: " + ending + "\n\n" + `data: {"choices":[],"usage":{},"system\u005ffingerprint":null}` + "\n\n", "data: " + ended[:len(ended)-1] + `,"system\u005ffingerprint":null}` + "\n\n"},
		{"nested is another", "data: " + ending + "\n\n" + `data: {"choices":[],"usage":{"system_fingerprint":"f"},"x":{"system_fingerprint":"f"}}` + "\n\n", "data: " + ended + "\n\n"},
		{"metrics are not moved", "data: " + ending + "\n\n" + `data: {"choices":[],"usage":{},"system_fingerprint":"f","metrics":{"queue_time_ms":1}}` + "\n\n", "data: " + marked + "\n\n"},
		{"over several lines", "id: 1\ndata: {\"choices\":\ndata: [{\"index\":0,\"finish_reason\":\"stop\"}]\ndata: }\nid: {}\n: }\n\n" + "data: {\"choices\":[],\"usage\":{},\ndata: \"system_fingerprint\"\ndata: :\"f\"}\n\n", "id: 1\ndata: {\"choices\":\ndata: [{\"index\":0,\"finish_reason\":\"stop\"}]\ndata: ,\ndata: \"system_fingerprint\"\ndata: :\"f\"}\nid: {}\n: }\n\n"},
		{"one that has one keeps it", "data: " + marked + "\n\ndata: " + totals + "\n\n", "data: " + marked + "\n\n"},
		{"only once", "data: " + ending + "\n\ndata: " + totals + "\n\ndata: " + totals + "\n\n", "data: " + marked + "\n\n"},
		{"an error stays", "data: " + ending + "\n\ndata: {\"error\":{},\"choices\":[],\"usage\":{},\"system_fingerprint\":\"f\"}\n\n", "data: " + ended + "\n\ndata: {\"error\":{},\"choices\":[],\"usage\":{},\"system_fingerprint\":\"f\"}\n\n"},
		{"a blank line between", "data: " + ending + "\n\n\ndata: " + totals + "\n\n", "data: " + ended + "\n\n\n"},
		{"without the last blank line", "data: " + ending + "\n\ndata: " + totals, "data: " + marked + "\n\n"},
		{"cut off inside", "data: " + ending + "\n\ndata: " + totals[:len(totals)-1], "data: " + ended + "\n\ndata: " + totals[:len(totals)-1]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, pieces := range ways(tc.in) {
				if _, out := feed(usage.NewMeter(stripsAll), pieces...); string(out) != tc.want {
					t.Fatalf("got %q, want %q", out, tc.want)
				}
			}
		})
	}
}

func TestChunkThatEndsAChoiceWaitsOnlyForAStripOfTheUsageChunk(t *testing.T) {
	in := []byte("data: " + ended + "\n\n")
	for _, o := range []usage.Options{
		{SSE: true}, {SSE: true, StripRunning: true}, {SSE: true, Format: usage.Responses, StripFinal: true}, {SSE: true, Format: usage.Pooling, StripFinal: true},
	} {
		if out, changed := usage.NewMeter(o).Feed(in, false); changed || len(out) != len(in) {
			t.Errorf("%+v: got %q, %t", o, out, changed)
		}
	}
	for _, o := range []usage.Options{stripsAll, {SSE: true, Format: usage.Completions, StripFinal: true}} {
		m := usage.NewMeter(o)
		if out, changed := m.Feed(in, false); !changed || len(out) > 0 {
			t.Errorf("%+v: got %q, %t, want that it waits", o, out, changed)
		}
		if out, changed := m.Feed(nil, true); !changed || string(out) != string(in) {
			t.Errorf("%+v: at the end: got %q, %t", o, out, changed)
		}
	}
	one := []byte("data: " + strings.Replace(ended, `"stop"`, "null", 1) + "\n\n")
	if out, changed := usage.NewMeter(stripsAll).Feed(one, false); changed || len(out) != len(one) {
		t.Errorf("nothing ends: got %q, %t", out, changed)
	}
}

func TestReportDoesNotWait(t *testing.T) {
	m := usage.NewMeter(stripsAll)
	m.Feed([]byte("data: "+strings.Replace(ending, "1}", "41}", 1)+"\n\n"), false)
	if r := m.Report(); r.Counts.Completion != 41 || m.Ended() {
		t.Errorf("got %+v, ended %t", r, m.Ended())
	}
	m.Feed([]byte("data: [DONE]\n\n"), false)
	if r := m.Report(); r.End != usage.Done || !m.Ended() {
		t.Errorf("got %+v, ended %t", r, m.Ended())
	}
}

func TestWaitingIsBounded(t *testing.T) {
	pad := func(s string, size int) string { return s + ":" + strings.Repeat("x", size-len(s)-3) + "\n\n" }
	waits, usageOnly := "data: "+ending+"\n", "data: "+totals+"\n"
	for _, tc := range []struct {
		name, in, want string
		oversize       uint32
	}{
		{"at the bound", pad(waits, mebibyte) + "data: " + totals + "\n\n", strings.Replace(pad(waits, mebibyte), ending, marked, 1), 0},
		{"too large to wait", pad(waits, mebibyte+1) + "data: " + totals + "\n\n", pad(waits, mebibyte+1), 1},
		{"behind it at the bound", waits + "\n" + pad(usageOnly, mebibyte), "data: " + marked + "\n\n", 0},
		{"behind it too large", waits + "\n" + pad(usageOnly, mebibyte+1), "data: " + ended + "\n\n" + pad(usageOnly, mebibyte+1), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := []byte(tc.in)
			for _, at := range [][]int{nil, {len(waits) - 2}, {len(waits) + 1}, {mebibyte - 1, mebibyte, mebibyte + 1}, {100, mebibyte / 2, len(in) - 1}} {
				r, out := feed(usage.NewMeter(stripsAll), split(in, at...)...)
				if string(out) != tc.want || r.Anomalies[usage.Oversize] != tc.oversize {
					t.Errorf("split at %v: got %d bytes and %d, want %d", at, len(out), r.Anomalies[usage.Oversize], len(tc.want))
				}
			}
		})
	}
	m := usage.NewMeter(stripsAll)
	before := heap()
	for range 16 {
		m.Feed([]byte(pad(waits, mebibyte)), false)
		m.Feed(bytes.Repeat([]byte("x"), mebibyte), false)
		m.Feed([]byte("\n\n"), false)
	}
	if grown := int64(heap()) - int64(before); grown > 8*mebibyte {
		t.Errorf("grew by %d bytes", grown)
	}
	m.Reset(stripsAll)
	if grown := int64(heap()) - int64(before); grown > little {
		t.Errorf("kept %d bytes", grown)
	}
	runtime.KeepAlive(m)
}

func TestMetersThatWaitedAllocateNothing(t *testing.T) {
	m := usage.NewMeter(stripsAll)
	pieces := [][]byte{[]byte("data: " + ending + "\n\n"), []byte("data: " + totals[:30]), []byte(totals[30:] + "\n\n"), []byte("data: [DONE]\n\n")}
	got := testing.AllocsPerRun(100, func() {
		m.Reset(stripsAll)
		for _, p := range pieces {
			m.Feed(p, false)
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}
