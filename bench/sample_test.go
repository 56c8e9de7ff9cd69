package main

import (
	"encoding/json"
	"math"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/bench/internal/histogram"
	"tollgate/bench/internal/sample"
	"tollgate/bench/internal/script"
)

func TestQuantilesAreRightToTwoPercent(t *testing.T) {
	var h histogram.Histogram
	var all []int64
	for v := int64(1); v < 1e10; v += 1 + v/50 {
		h.Record(v)
		all = append(all, v)
	}
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		want := float64(all[max(0, int(math.Ceil(q*float64(len(all))))-1)])
		if got := float64(h.Quantile(q)); math.Abs(got-want) > 0.02*want {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	h.Record(-5)
	if got := h.Quantile(0); got != 0 {
		t.Errorf("a negative duration: got %d, want it counted as 0", got)
	}
	h.Record(math.MaxInt64) // must have a bucket
	if got, want := h.Count(), uint64(len(all)+2); got != want {
		t.Errorf("count: got %d, want %d", got, want)
	}
}

func TestHistogramSurvivesJSONAndMerges(t *testing.T) {
	var a, b histogram.Histogram
	for v := range int64(1000) {
		a.Record(v * 1000)
	}
	text, err := json.Marshal(&a)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	b.Merge(&a)
	if got, want := b.Quantile(0.5), a.Quantile(0.5); got != want || b.Count() != 2000 {
		t.Errorf("got median %d of %d, want %d of 2000", got, b.Count(), want)
	}
	if err := json.Unmarshal([]byte(`[[99999,1]]`), &b); err == nil {
		t.Error("a bucket that does not exist was read")
	}
}

func TestSchedstatIsParsed(t *testing.T) {
	got, err := sample.ParseSchedstat([]byte("111509 4638 2\n"))
	if err != nil || got != 111509 {
		t.Errorf("got %d, %v, want 111509", got, err)
	}
	for _, bad := range []string{"", "1 2", "x 1 2", "-1 2 3", "1 2 3 4"} {
		if _, err := sample.ParseSchedstat([]byte(bad)); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func TestCPUTimeCountsNewThreadsAndNotOldTime(t *testing.T) {
	before := sample.CPU{1: 100, 2: 50}
	after := sample.CPU{1: 130, 3: 7} // 2 has ended, 3 is new
	if got := after.Since(before); got != 37 {
		t.Errorf("got %d, want 37", got)
	}
}

func TestOwnCPUTimeAndMemoryAreRead(t *testing.T) {
	before, err := sample.ReadCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		continue // work
	}
	after, err := sample.ReadCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got := after.Since(before); got < 5*time.Millisecond || got > 10*time.Second {
		t.Errorf("50 ms of work: got %v of CPU time", got)
	}
	rss, err := sample.ReadRSS(os.Getpid())
	if err != nil || rss < 1<<20 || rss > 1<<36 {
		t.Errorf("resident memory: got %d, %v", rss, err)
	}
	if _, err := sample.ParseRollup([]byte("Pss: 1 kB\n")); err == nil {
		t.Error("a rollup without Rss was parsed")
	}
}

func TestScriptSurvivesItsHeader(t *testing.T) {
	for _, want := range []script.Script{
		{},
		{Chunks: 300, Every: 5 * time.Millisecond},
		{Chunks: 2, Cut: 1, Stall: true, Usage: true, Strip: true},
	} {
		got, err := script.Parse(want.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", want, diff)
		}
	}
	for _, bad := range []string{"n", "n=x", "n=-1", "what=1"} {
		if _, err := script.Parse(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}
