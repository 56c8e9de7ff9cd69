package vllm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// ErrNoCounters means that the page of metrics has no counter of tokens: another
// program has the port, or vLLM runs with --disable-log-stats.
var ErrNoCounters = errors.New("no token counters of vLLM on /metrics")

// Metrics are the series of an engine that we use, each summed over the models and
// the data-parallel ranks of the engine.
type Metrics struct {
	Prompt     int64 // tokens read since the engine started
	Generation int64 // tokens made since the engine started
	Running    int64 // sequences that run now
	Waiting    int64 // sequences that wait for a place
	// PrefixQueries and PrefixHits are tokens that were looked up in the prefix cache,
	// and those of them that it had, since the engine started.
	PrefixQueries, PrefixHits int64
	// Started is when the process began, in Unix seconds; 0 where it does not say.
	Started float64
}

// series is where the value of each series goes.
func (m *Metrics) series() map[string]func(float64) {
	whole := func(to *int64) func(float64) { return func(v float64) { *to = int64(v) } }
	return map[string]func(float64){
		promptCounter:                     whole(&m.Prompt),
		generationCounter:                 whole(&m.Generation),
		"vllm:num_requests_running":       whole(&m.Running),
		"vllm:num_requests_waiting":       whole(&m.Waiting),
		"vllm:prefix_cache_queries_total": whole(&m.PrefixQueries),
		"vllm:prefix_cache_hits_total":    whole(&m.PrefixHits),
		"process_start_time_seconds":      func(v float64) { m.Started = v },
	}
}

const (
	promptCounter     = "vllm:prompt_tokens_total"
	generationCounter = "vllm:generation_tokens_total"
)

// Metrics reads the engine's counters. It fails with [ErrNoCounters] where the page
// lacks one of the two token counters. Series that an engine does not have are 0.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	resp, err := c.do(ctx, http.MethodGet, "/metrics", nil, false)
	if err != nil {
		return Metrics{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return Metrics{}, &StatusError{Path: "/metrics", Status: resp.StatusCode}
	}
	return parseMetrics(resp.Body)
}

func parseMetrics(page io.Reader) (Metrics, error) {
	var m Metrics
	wanted := m.series()
	text, err := pick(page, wanted)
	if err != nil {
		return Metrics{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return Metrics{}, fmt.Errorf("parse metrics: %w", err)
	}
	if families[promptCounter] == nil || families[generationCounter] == nil {
		return Metrics{}, ErrNoCounters
	}
	for name, set := range wanted {
		set(sum(families[name]))
	}
	return m, nil
}

// pick returns the lines of a page that name a wanted series. A page has about 800
// lines and is read every second; parsing all of them costs twenty times as much.
// A value of a label holds no line end, so that lines can be taken apart.
func pick(page io.Reader, wanted map[string]func(float64)) ([]byte, error) {
	limited := &io.LimitedReader{R: page, N: maxMetrics + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	var text []byte
	for lines.Scan() {
		line := lines.Bytes()
		name := line
		if rest, ok := bytes.CutPrefix(line, []byte("# TYPE ")); ok {
			name = rest
		}
		if end := bytes.IndexAny(name, "{ "); end >= 0 {
			name = name[:end]
		}
		if _, ok := wanted[string(name)]; ok {
			text = append(append(text, line...), '\n')
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("read metrics: %w: more than %d bytes", ErrTooLong, maxMetrics)
	}
	return text, nil
}

// sum adds up all series of a family. A page without types calls its counters
// untyped.
func sum(family *dto.MetricFamily) float64 {
	total := 0.0
	for _, m := range family.GetMetric() {
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
	}
	return total
}
