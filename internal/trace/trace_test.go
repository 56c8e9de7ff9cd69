package trace_test

import (
	"math"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"

	"tollgate/internal/trace"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
	good    = "00-" + traceID + "-" + spanID + "-01"
)

func TestASpanIsTheChildOfTheClientsAndTheParentOfTheEngines(t *testing.T) {
	span, passed := trace.NewSampler(0).Begin([]string{good})
	id, parent, _ := strings.Cut(strings.TrimPrefix(span.String(), traceID+"-"), "-")
	if span.TraceID() != traceID || parent != spanID || id == spanID || len(id) != len(spanID) {
		t.Errorf("got %s", span)
	}
	if want := "00-" + traceID + "-" + id + "-01"; passed.Traceparent != want || passed.Restarted {
		t.Errorf("the engine is told %+v, want %s", passed, want)
	}
}

func TestWhatIsNoTraceparentBeginsATrace(t *testing.T) {
	for name, headers := range map[string][]string{
		"none":          nil,
		"two":           {good, good},
		"joined":        {good + ", " + good},
		"empty":         {""},
		"short":         {good[:len(good)-1]},
		"longer":        {good + "-00"},
		"capitals":      {strings.ToUpper(good)},
		"version ff":    {"ff" + good[2:]},
		"no trace":      {"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01"},
		"no span":       {"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01"},
		"bad flags":     {good[:len(good)-2] + "0g"},
		"bad hyphen":    {strings.Replace(good, traceID+"-", traceID+"_", 1)},
		"later, glued":  {"01" + good[2:] + "x"},
		"space":         {" " + good},
		"key in header": {"Bearer sk-1234567890"},
	} {
		span, passed := trace.NewSampler(1).Begin(headers)
		if span.None() || span.Parent != [8]byte{} || span.TraceID() == traceID || !passed.Restarted {
			t.Errorf("%s: got %s, %+v", name, span, passed)
		}
		if !strings.HasPrefix(passed.Traceparent, "00-"+span.TraceID()) || !strings.HasSuffix(passed.Traceparent, "-03") {
			t.Errorf("%s: the engine is told %s", name, passed.Traceparent)
		}
	}
	if span, passed := trace.NewSampler(1).Begin([]string{"cc" + good[2:] + "-what comes later"}); passed.Restarted || span.TraceID() != traceID {
		t.Error("a later version is not read")
	}
}

func TestTheClientsChoiceCountsAndElseTheShare(t *testing.T) {
	unsampled := good[:len(good)-1] + "0"
	if span, passed := trace.NewSampler(1).Begin([]string{unsampled}); !span.None() || !strings.HasSuffix(passed.Traceparent, "-00") || passed.Restarted {
		t.Errorf("not sampled: got %v, %+v", span, passed)
	}
	const n = 4000
	for _, share := range []float64{0, 0.25, 1} {
		taken := 0
		for range n {
			span, passed := trace.NewSampler(share).Begin(nil)
			if flagged := strings.HasSuffix(passed.Traceparent, "-03"); flagged == span.None() {
				t.Fatalf("the engine hears %s of span %v", passed.Traceparent, span)
			}
			if !span.None() {
				taken++
			}
		}
		if spread := 5 * math.Sqrt(n*share*(1-share)); math.Abs(float64(taken)-n*share) > spread {
			t.Errorf("share %v: %d of %d", share, taken, n)
		}
	}
}

func TestTheIdentityIsReadAgain(t *testing.T) {
	for _, headers := range [][]string{nil, {good}} {
		span, _ := trace.NewSampler(1).Begin(headers)
		if got := trace.Read(span.String()); got != span {
			t.Errorf("got %v, want %v", got, span)
		}
	}
	for _, bad := range []string{"", "x", traceID, traceID + "-" + spanID + "-", traceID + "-" + strings.Repeat("0", 16), strings.ToUpper(traceID) + "-" + spanID} {
		if got := trace.Read(bad); !got.None() {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

// OpenTelemetry's own reader is the judge of what is a traceparent.
func FuzzBegin(f *testing.F) {
	f.Add(good)
	f.Add("01" + good[2:] + "-x")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		span, passed := trace.NewSampler(1).Begin([]string{header})
		carrier := propagation.MapCarrier{"traceparent": header}
		want := oteltrace.SpanContextFromContext(propagation.TraceContext{}.Extract(t.Context(), carrier))
		// It also reads flags with bits that no version has a meaning for, or none.
		if want.IsValid() && (passed.Restarted || !span.None() && span.TraceID() != want.TraceID().String()) {
			t.Errorf("%q is a traceparent", header)
		}
		carrier["traceparent"] = passed.Traceparent
		told := oteltrace.SpanContextFromContext(propagation.TraceContext{}.Extract(t.Context(), carrier))
		if !told.IsValid() || told.IsSampled() == span.None() {
			t.Errorf("%q: the engine is told %q", header, passed.Traceparent)
		}
	})
}

func BenchmarkBegin(b *testing.B) {
	s, headers := trace.NewSampler(1), []string{good}
	b.ReportAllocs()
	for b.Loop() {
		s.Begin(headers)
	}
}
