package usage_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/usage"
)

// options makes the options of a fuzz input from one number.
func options(n uint16, sse bool) usage.Options {
	return usage.Options{
		Format: usage.Format(n % 6), SSE: sse,
		Choices: int(n>>3) & 3, Prompts: int(n>>5) & 3,
		StripFinal: n>>7&1 != 0, StripRunning: n>>8&1 != 0,
	}
}

// checkAgainstReference compares a report with the naive one where there is one.
func checkAgainstReference(t *testing.T, o usage.Options, body []byte, got usage.Report) {
	t.Helper()
	want, ok := refer(o, body)
	if !ok || got.Anomalies[usage.Encoded] > 0 || got.Anomalies[usage.Overflow] > 0 {
		return
	}
	if !utf8.Valid(body) { // the decoder replaces what is not UTF-8
		want.TextBytes, got.TextBytes = 0, 0
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("against the reference with %+v (-want +got)\n%s", o, diff)
	}
}

func checkSplits(t *testing.T, o usage.Options, body []byte, a, b uint16) usage.Report {
	t.Helper()
	m := usage.NewMeter(o)
	want, wantOut := feed(m, body)
	i, j := int(a)%(len(body)+1), int(b)%(len(body)+1)
	for _, pieces := range [][][]byte{split(body, min(i, j), max(i, j)), bytewise(body)} {
		if len(pieces) == 0 {
			continue
		}
		m.Reset(o)
		got, out := feed(m, pieces...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d pieces with %+v (-whole +split)\n%s", len(pieces), o, diff)
		}
		if !bytes.Equal(out, wantOut) {
			t.Errorf("%d pieces with %+v: got %q, whole %q", len(pieces), o, out, wantOut)
		}
	}
	strips := o.SSE && o.Format <= usage.Completions && (o.StripFinal || o.StripRunning)
	if !strips && !bytes.Equal(wantOut, body) {
		t.Errorf("the bytes changed with %+v: %q", o, wantOut)
	}
	return want
}

func FuzzSSE(f *testing.F) {
	for _, rec := range loadAll(f) {
		if rec.o.SSE && len(rec.body) < 8<<10 {
			f.Add(rec.body, uint16(rec.o.Format)|uint16(rec.o.Choices)<<3|3<<7, uint16(7), uint16(300))
		}
	}
	f.Add([]byte(stream), uint16(3<<7), uint16(30), uint16(60))
	f.Add([]byte("\xef\xbb\xbfdata:{\"usage\":{\"completion_tokens\":1},\rdata: \"choices\":[{\"index\":0}]}\r\r\n: c\n\nevent: error\ndata\n\n"), uint16(3<<7), uint16(3), uint16(30))
	f.Fuzz(func(t *testing.T, body []byte, n, a, b uint16) {
		o := options(n, true)
		got := checkSplits(t, o, body, a, b)
		checkAgainstReference(t, o, body, got)
		checkStrip(t, o, body, got)
	})
}

// checkStrip holds a strip to two rules: it changes what the client sees, never
// what is counted; and the client sees what is left when the documents are
// edited one by one.
func checkStrip(t *testing.T, o usage.Options, body []byte, got usage.Report) {
	t.Helper()
	if !o.StripFinal && !o.StripRunning || o.Format > usage.Completions {
		return
	}
	plain := o
	plain.StripFinal, plain.StripRunning = false, false
	if unstripped, _ := feed(usage.NewMeter(plain), body); unstripped != got {
		t.Errorf("a strip changed the report: %+v, %+v", unstripped, got)
	}
	if _, ok := refer(o, body); ok && got.Anomalies == [usage.Anomalies]uint32{} && got.End != usage.Failed {
		_, out := feed(usage.NewMeter(o), body)
		if diff := cmp.Diff(strip(o, string(body)), strip(usage.Options{}, string(out))); diff != "" {
			t.Errorf("strip with %+v (-want +got)\n%s", o, diff)
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, rec := range loadAll(f) {
		if !rec.o.SSE {
			f.Add(rec.body, uint16(rec.o.Format)|uint16(rec.o.Choices)<<3, uint16(7), uint16(300))
		}
	}
	f.Add([]byte(`{"us\u0061ge":{"prompt_tokens":1e3,"completion_tokens":"12","prompt_tokens_details":{"cached_tokens":-1}},"choices":[{"finish_reason":"abort"}],"error":null}`), uint16(8), uint16(3), uint16(30))
	f.Fuzz(func(t *testing.T, body []byte, n, a, b uint16) {
		o := options(n, false)
		checkAgainstReference(t, o, body, checkSplits(t, o, body, a, b))
	})
}
