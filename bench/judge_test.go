package main

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/bench/internal/lane"
	"tollgate/bench/internal/load"
	"tollgate/bench/internal/rig"
	"tollgate/bench/internal/upstream"
	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

func TestLedgerThatDisagreesIsSeen(t *testing.T) {
	truth := func() *upstream.Truth {
		return &upstream.Truth{Records: map[string]upstream.Record{"a": {Written: 10, Done: true}}}
	}
	row := func(tokens int64, quality ledger.Quality, reason ledger.EndReason) map[string]ledger.Record {
		return map[string]ledger.Record{"a": {
			Quality: quality, Reason: reason, Counts: usage.Counts{Prompt: upstream.PromptTokens, Completion: tokens},
		}}
	}
	whole := map[string]load.Delivered{"a": {Chunks: 10, Complete: true}}
	part := map[string]load.Delivered{"a": {Chunks: 6}}
	for _, c := range []struct {
		name      string
		rows      map[string]ledger.Record
		delivered map[string]load.Delivered
		ok        bool
	}{
		{"equal", row(10, ledger.Exact, ledger.Complete), whole, true},
		{"one token short", row(9, ledger.Exact, ledger.Complete), whole, false},
		{"cut, between delivered and written", row(7, ledger.Exact, ledger.ClientAbort), part, true},
		{"cut, below delivered", row(5, ledger.Exact, ledger.ClientAbort), part, false},
		{"cut, above written", row(11, ledger.Exact, ledger.ClientAbort), part, false},
		{"estimated", row(10, ledger.Estimated, ledger.Complete), whole, false},
		{"cut and estimated", row(0, ledger.Estimated, ledger.UpstreamAbort), part, false},
		{"cut before anything came, estimated", row(0, ledger.Estimated, ledger.UpstreamAbort), map[string]load.Delivered{"a": {}}, true},
		{"open", row(10, ledger.Exact, ""), whole, false},
		{"missing", nil, whole, false},
	} {
		if got := lane.Compare(c.rows, truth(), c.delivered); (got == "") != c.ok {
			t.Errorf("%s: got %q", c.name, got)
		}
	}
}

// rounds makes runs of a lane whose CPU per request is given in ms by target.
func rounds(cpu map[string][]float64) *lane.Bench {
	b := &lane.Bench{}
	for _, name := range []string{lane.NamePlain, lane.NamePlainAgain, lane.NameBare, lane.NameTollgate} {
		b.Targets = append(b.Targets, lane.Target{Name: name, Stack: &rig.Stack{}})
		for i, v := range cpu[name] {
			b.Runs = append(b.Runs, lane.Run{
				Lane: lane.Streams, Target: name, Round: i, Requests: 1, Chunks: 300,
				Envoy: time.Duration(v * 1e6), TTFT50: 1, Lag50: 1,
			})
		}
	}
	return b
}

func TestRestlessMachineMakesFiguresVoid(t *testing.T) {
	calm := rounds(map[string][]float64{
		lane.NamePlain: {1, 2, 3}, lane.NamePlainAgain: {1.05, 2.1, 3.15}, lane.NameBare: {4, 8, 12}, lane.NameTollgate: {3, 6, 9},
	})
	if c := calm.Control(lane.Streams); len(calm.Void()) > 0 || math.Abs(c.CPU-0.05) > 1e-9 {
		t.Errorf("5 %% apart: got %+v", c)
	}
	if len(calm.Void()) != 0 {
		t.Errorf("got void: %v", calm.Void())
	}
	figures := calm.Figures(lane.Streams)
	i := slices.IndexFunc(figures, func(f lane.Figure) bool { return f.Target == lane.NameTollgate })
	if f := figures[i]; math.Abs(f.OverPlain-3/1.025) > 1e-9 || math.Abs(f.OverBare-0.75) > 1e-9 {
		t.Errorf("ratios are taken within a round, over both columns of plain Envoy: got %v, and %v over bare", f.OverPlain, f.OverBare)
	}
	restless := rounds(map[string][]float64{lane.NamePlain: {1, 1, 1}, lane.NamePlainAgain: {1.2, 1.2, 1.2}})
	if len(restless.Void()) == 0 {
		t.Error("20 % apart is not void")
	}
	scattered := rounds(map[string][]float64{lane.NamePlain: {1, 1, 1}, lane.NamePlainAgain: {1.04, 0.83, 1.21}})
	if len(scattered.Void()) == 0 {
		t.Error("rounds that differ by 17 % and more in both directions cancel out")
	}
	var saved, first, second bytes.Buffer
	if err := calm.JSON(&saved, lane.Machine{Cores: 2}); err != nil {
		t.Fatal(err)
	}
	read, machine, err := lane.Read(&saved)
	if err != nil {
		t.Fatal(err)
	}
	calm.Table(&first, lane.Machine{Cores: 2})
	read.Table(&second, machine)
	if diff := cmp.Diff(first.String(), second.String()); diff != "" {
		t.Errorf("read again, the table is another (-first +second)\n%s", diff)
	}
	alone := rounds(map[string][]float64{lane.NamePlain: {1}})
	if len(alone.Void()) == 0 {
		t.Error("a run without a control is not void")
	}
}

// TestChunksAreToldFromRequests: at the same number of streams where both lanes ran.
func TestChunksAreToldFromRequests(t *testing.T) {
	cpu := func(request, chunk float64) func(chunks int) time.Duration { // ms, µs
		return func(chunks int) time.Duration { return time.Duration(request*1e6 + chunk*1e3*float64(chunks)) }
	}
	b := &lane.Bench{}
	for name, of := range map[string]func(int) time.Duration{
		lane.NamePlain: cpu(0.4, 20), lane.NamePlainAgain: cpu(0.6, 30), lane.NameTollgate: cpu(2, 30),
	} {
		b.Targets = append(b.Targets, lane.Target{Name: name, Stack: &rig.Stack{}})
		for l, chunks := range map[string]int{lane.Streams: 300, lane.Long: 1500} {
			b.Runs = append(b.Runs, lane.Run{Lane: l, Target: name, Requests: 1, Chunks: int64(chunks), Envoy: of(chunks)})
		}
		// Cheaper by a millisecond each: warm.
		b.Runs = append(b.Runs, lane.Run{Lane: lane.Two, Target: name, Requests: 1, Chunks: 2, Envoy: max(0, of(2)-time.Millisecond)})
	}
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > 1e-6 {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	splits := b.Splits()
	if len(splits) != 3 {
		t.Fatalf("got %d targets, want 3", len(splits))
	}
	for _, s := range splits {
		if s.Target == lane.NameTollgate {
			near("ms per request", s.EnvoyPerK, 2)
			near("µs per chunk", s.EnvoyPerM, 30)
			near("requests over both columns of plain Envoy", s.RequestOverSame, 4)
			near("chunks over both columns of plain Envoy", s.ChunkOverSame, 1.2)
		}
	}
	b.Runs = slices.DeleteFunc(b.Runs, func(r lane.Run) bool { return r.Lane == lane.Long })
	for _, s := range b.Splits() {
		if s.Target == lane.NameTollgate {
			near("µs per chunk by two and streams", s.EnvoyPerM, 30+1e3/298.)
		}
	}
}

func TestRunThatDisagreesHasNoFigures(t *testing.T) {
	b := rounds(map[string][]float64{lane.NamePlain: {1, 1}, lane.NamePlainAgain: {1, 1}, lane.NameTollgate: {9, 3}})
	for i := range b.Runs {
		if b.Runs[i].Target == lane.NameTollgate && b.Runs[i].Round == 0 {
			b.Runs[i].Void = "the ledger has one token too many"
		}
	}
	var out bytes.Buffer
	b.Table(&out, lane.Machine{})
	if len(b.Void()) != 1 || !strings.Contains(out.String(), "one token too many") || !strings.Contains(out.String(), "1 of 2") {
		t.Errorf("void: %v\n%s", b.Void(), &out)
	}
	if strings.Contains(out.String(), "6.00") {
		t.Errorf("the void round is in the median:\n%s", &out)
	}
}
