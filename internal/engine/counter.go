package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"tollgate/internal/admission"
)

const (
	generatedCounter = "vllm:generation_tokens_total"
	runningGauge     = "vllm:num_requests_running"
	// maxPage bounds one page of metrics; a real engine's has 65 KB.
	maxPage = 16 << 20
)

// errNoCounter says that a page of metrics is no vLLM's.
var errNoCounter = errors.New("no counter of generated tokens on /metrics")

// Generated reads the counters of generated tokens of all engines that are ready,
// summed up. It reads two series and no more, because it is asked for often.
func (p *Pool) Generated(ctx context.Context) (admission.Generation, error) {
	var sum admission.Generation
	for i, s := range p.States() {
		if !s.Ready {
			continue
		}
		g, err := p.generated(ctx, p.o.Endpoints[i])
		if err != nil {
			return sum, err
		}
		sum.Tokens += g.Tokens
		sum.Running += g.Running
		sum.Engines++
	}
	return sum, nil
}

func (p *Pool) generated(ctx context.Context, endpoint string) (g admission.Generation, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+endpoint+"/metrics", http.NoBody)
	if err != nil {
		return g, fmt.Errorf("read counters: %w", err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return g, fmt.Errorf("read counters: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	found := false
	lines := bufio.NewScanner(io.LimitReader(resp.Body, maxPage))
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	for lines.Scan() {
		if v, ok := series(lines.Bytes(), generatedCounter); ok {
			g.Tokens += v
			found = true
		} else if v, ok := series(lines.Bytes(), runningGauge); ok {
			g.Running += v
		}
	}
	if err := lines.Err(); err != nil {
		return g, fmt.Errorf("read counters: %w", err)
	}
	if !found {
		return g, errNoCounter
	}
	return g, nil
}

// series reads the value of a line of that name.
func series(line []byte, name string) (int64, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(name))
	if !ok || len(rest) == 0 || rest[0] != '{' && rest[0] != ' ' {
		return 0, false
	}
	value := rest[bytes.LastIndexByte(rest, ' ')+1:]
	v, err := strconv.ParseFloat(string(value), 64)
	return int64(v), err == nil
}
