package vllm

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// recorded is a page of a real vLLM.
func recorded(tb testing.TB) []byte {
	tb.Helper()
	page, err := os.ReadFile("../vllmsim/testdata/base/metrics.txt")
	if err != nil {
		tb.Fatal(err)
	}
	return page
}

// library reads the same with Prometheus's own parser, which reads everything.
func library(page []byte) (Metrics, bool) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil || families[promptCounter] == nil || families[generationCounter] == nil {
		return Metrics{}, false
	}
	fits := true
	sum := func(name string) float64 {
		total := 0.0
		f := families[name]
		switch f.GetType() {
		case dto.MetricType_HISTOGRAM, dto.MetricType_SUMMARY, dto.MetricType_GAUGE_HISTOGRAM:
			fits = false
		case dto.MetricType_COUNTER, dto.MetricType_GAUGE, dto.MetricType_UNTYPED:
		}
		for _, m := range f.GetMetric() {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			fits = fits && v >= 0 && v <= 1<<53 && !math.IsNaN(v)
			total += v
		}
		return total
	}
	m := Metrics{
		Prompt: int64(sum(promptCounter)), Generation: int64(sum(generationCounter)),
		Running: int64(sum("vllm:num_requests_running")), Waiting: int64(sum("vllm:num_requests_waiting")),
		PrefixQueries: int64(sum("vllm:prefix_cache_queries_total")), PrefixHits: int64(sum("vllm:prefix_cache_hits_total")),
		Started: sum("process_start_time_seconds"),
	}
	return m, fits
}

func TestARealPageIsReadAsTheLibraryReadsIt(t *testing.T) {
	page := recorded(t)
	want, ok := library(page)
	if !ok || want.Prompt == 0 || want.Started == 0 {
		t.Fatalf("the library reads %+v, %v", want, ok)
	}
	if got, err := parseMetrics(bytes.NewReader(page)); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestLinesThatAreBroken(t *testing.T) {
	const rest = "\nvllm:generation_tokens_total 1\n"
	for line, want := range map[string]int64{
		`vllm:prompt_tokens_total{a="}\"{",b="\\"} 3`: 3,
		"vllm:prompt_tokens_total\t{} 4":              -1,
		"vllm:prompt_tokens_total \t 5 1700000000000": 5,
		"vllm:prompt_tokens_total 6\r":                6,
		`vllm:prompt_tokens_total{a="} 3`:             -1,
		`vllm:prompt_tokens_total{a="\"} 3`:           -1,
		"vllm:prompt_tokens_total{":                   -1,
		"vllm:prompt_tokens_total{} ":                 -1,
		"vllm:prompt_tokens_total NaN":                -1,
		"vllm:prompt_tokens_total +Inf":               -1,
		"vllm:prompt_tokens_total -1":                 -1,
		"vllm:prompt_tokens_total 1e300":              -1,
		"vllm:prompt_tokens_total many":               -1,
	} {
		got, err := parseMetrics(strings.NewReader(line + rest))
		if want < 0 && (err == nil || !strings.Contains(err.Error(), promptCounter)) || want >= 0 && (err != nil || got.Prompt != want) {
			t.Errorf("%q: %+v, %v, want %d", line, got, err, want)
		}
	}
}

// FuzzMetrics: whatever a page has, what is read of it is what the library reads, or
// an error.
func FuzzMetrics(f *testing.F) {
	f.Add(recorded(f))
	f.Add([]byte("# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{a=\"}\\\"{\"} 3 17\n# HELP x y\nvllm:generation_tokens_total 4\n"))
	f.Add([]byte("vllm:prompt_tokens_total 1\nvllm:generation_tokens_total 0x1p4\nprocess_start_time_seconds 1.5\n"))
	f.Fuzz(func(t *testing.T, page []byte) {
		got, err := parseMetrics(bytes.NewReader(page))
		if err != nil && got != (Metrics{}) {
			t.Errorf("%+v beside %v", got, err)
		}
		want, ok := library(page)
		switch {
		case !ok:
		case err == nil && got != want:
			t.Errorf("got %+v, the library %+v", got, want)
		case err != nil && !errors.Is(err, errNumber) && !errors.Is(err, errLabels):
			t.Errorf("%v, the library reads %+v", err, want)
		}
	})
}

func BenchmarkMetrics(b *testing.B) {
	page := recorded(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(page)))
	for b.Loop() {
		if _, err := parseMetrics(bytes.NewReader(page)); err != nil {
			b.Fatal(err)
		}
	}
}
