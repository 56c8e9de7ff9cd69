package vllm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
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

const (
	promptCounter     = "vllm:prompt_tokens_total"
	generationCounter = "vllm:generation_tokens_total"
)

// numbers are the sums of the series that make up [Metrics].
type numbers struct {
	prompt, generation, running, waiting, queries, hits, started float64
	// counters has a bit for each of the two token counters that the page has.
	counters int
}

// of returns where a series is summed up, nil for one that we do not use.
func (n *numbers) of(series []byte) *float64 {
	switch string(series) {
	case promptCounter:
		n.counters |= 1
		return &n.prompt
	case generationCounter:
		n.counters |= 2
		return &n.generation
	case "vllm:num_requests_running":
		return &n.running
	case "vllm:num_requests_waiting":
		return &n.waiting
	case "vllm:prefix_cache_queries_total":
		return &n.queries
	case "vllm:prefix_cache_hits_total":
		return &n.hits
	case "process_start_time_seconds":
		return &n.started
	}
	return nil
}

// Metrics reads the engine's counters. It fails with [ErrNoCounters] where the page
// lacks one of the two token counters. Series that an engine does not have are 0.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	page, err := c.open(ctx, "/metrics", false)
	if err != nil {
		return Metrics{}, err
	}
	defer func() { _ = page.Close() }()
	return parseMetrics(page)
}

// parseMetrics sums up the series that we use. A page has about 800 lines and is read
// every second, so that what nobody asked for is passed over.
func parseMetrics(page io.Reader) (Metrics, error) {
	var n numbers
	limited := &io.LimitedReader{R: page, N: maxMetrics + 1}
	// A value of a label holds no line end, so that lines can be taken apart.
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		end := bytes.IndexAny(line, "{ \t")
		if end < 0 {
			continue
		}
		sum := n.of(line[:end])
		if sum == nil {
			continue
		}
		v, err := value(line[end:])
		if err != nil {
			return Metrics{}, fmt.Errorf("parse metrics: %s: %w", line[:end], err)
		}
		*sum += v
	}
	if err := lines.Err(); err != nil {
		return Metrics{}, fmt.Errorf("read metrics: %w", err)
	}
	if limited.N <= 0 {
		return Metrics{}, fmt.Errorf("read metrics: %w: more than %d bytes", ErrTooLong, maxMetrics)
	}
	if n.counters != 3 {
		return Metrics{}, ErrNoCounters
	}
	return Metrics{
		Prompt: int64(n.prompt), Generation: int64(n.generation), Running: int64(n.running), Waiting: int64(n.waiting),
		PrefixQueries: int64(n.queries), PrefixHits: int64(n.hits), Started: n.started,
	}, nil
}

// Errors of one line.
var (
	errLabels = errors.New("its labels do not end")
	errNumber = errors.New("its value is no number of 0 or more")
)

// value is that of a line whose name has been cut off; a time after it means nothing to
// us.
func value(rest []byte) (float64, error) {
	if rest[0] == '{' {
		end := labels(rest)
		if end == 0 {
			return 0, errLabels
		}
		rest = rest[end:]
	}
	rest = bytes.TrimLeft(rest, " \t")
	if end := bytes.IndexAny(rest, " \t\r"); end >= 0 {
		rest = rest[:end]
	}
	v, err := strconv.ParseFloat(string(rest), 64)
	// What is larger than 2^53 is no exact count, and no engine lives so long.
	if err != nil || math.IsNaN(v) || v < 0 || v > 1<<53 {
		return 0, errNumber
	}
	return v, nil
}

// labels is where the labels at the beginning of a line end; 0: nowhere. A brace or a
// quotation mark may be part of a label's value.
func labels(line []byte) int {
	quoted := false
	for i := 1; i < len(line); i++ {
		switch {
		case quoted && line[i] == '\\':
			i++
		case line[i] == '"':
			quoted = !quoted
		case !quoted && line[i] == '}':
			return i + 1
		}
	}
	return 0
}
