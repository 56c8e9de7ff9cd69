package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	promptCounter     = "vllm:prompt_tokens_total"
	generationCounter = "vllm:generation_tokens_total"
	startedGauge      = "process_start_time_seconds"
	// maxPage bounds one scrape; a real engine's page has 65 KB.
	maxPage = 16 << 20
	// askTimeout bounds one scrape.
	askTimeout = 5 * time.Second
)

// ErrNoCounters means that what answered /metrics is no vLLM.
var ErrNoCounters = errors.New("no token counters of vLLM on /metrics")

// Scrape reads the token counters of an engine (host:port), summed over all
// its series: models and data-parallel ranks.
func Scrape(ctx context.Context, client *http.Client, engine string) (Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+engine+"/metrics", http.NoBody)
	if err != nil {
		return Reading{}, fmt.Errorf("scrape %s: %w", engine, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return Reading{}, fmt.Errorf("scrape %s: %w", engine, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return Reading{}, fmt.Errorf("scrape %s: answered %s", engine, resp.Status)
	}
	c, err := parse(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return Reading{}, fmt.Errorf("scrape %s: %w", engine, err)
	}
	return c, nil
}

func parse(page io.Reader) (Reading, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return Reading{}, fmt.Errorf("parse metrics: %w", err)
	}
	sum := func(name string) (float64, bool) {
		family, ok := families[name]
		total := 0.0
		for _, m := range family.GetMetric() {
			// A page without types calls its counters untyped.
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
		return total, ok
	}
	prompt, ok := sum(promptCounter)
	generation, also := sum(generationCounter)
	if !ok || !also {
		return Reading{}, ErrNoCounters
	}
	started, _ := sum(startedGauge)
	return Reading{Counters: Counters{Prompt: int64(prompt), Generation: int64(generation)}, Started: started}, nil
}

// names are the addresses by which records call an engine: as configured, and
// as the proxy resolved it.
func names(ctx context.Context, engine string) map[string]bool {
	out := map[string]bool{engine: true}
	host, port, err := net.SplitHostPort(engine)
	if err != nil {
		return out
	}
	// Where the name does not resolve now, records of it cannot be told; the
	// configured one still counts.
	addresses, _ := net.DefaultResolver.LookupHost(ctx, host)
	for _, a := range addresses {
		out[net.JoinHostPort(a, port)] = true
	}
	return out
}
