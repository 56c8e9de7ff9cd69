package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// stallCheck finds an engine that hangs: it says that requests are running, or
// says nothing any more, and no token counter moves for the timeout. It sends
// no request of its own, which would cost tokens.
type stallCheck struct {
	probe   *engineProbe
	timeout time.Duration

	tokens float64   // at the last look
	moved  time.Time // when they last moved or nothing was running; zero: not looked yet
}

// reset is for an engine that has just become ready.
func (s *stallCheck) reset() { s.moved = time.Time{} }

// check is nil while the engine moves, is idle, or has not been still for long
// enough.
func (s *stallCheck) check(ctx context.Context) error {
	now := time.Now()
	status, body, err := get(ctx, s.probe.client, s.probe.base+"/metrics", "")
	if s.moved.IsZero() {
		s.moved = now
	}
	if err == nil && status == http.StatusOK {
		running, tokens := counters(body)
		if running == 0 || tokens != s.tokens {
			s.moved, s.tokens = now, tokens
			return nil
		}
	}
	if still := now.Sub(s.moved); still >= s.timeout {
		return fmt.Errorf("hung: requests are running and no token has been counted for %s", still.Round(time.Second))
	}
	return nil
}

// counters adds up, over all engines and models, what is running and every
// token counted.
func counters(metrics []byte) (running, tokens float64) {
	lines := bufio.NewScanner(bytes.NewReader(metrics))
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		line := lines.Text()
		name := line[:max(0, strings.IndexAny(line, "{ "))]
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			continue
		}
		switch name {
		case "vllm:num_requests_running":
			running += value
		case "vllm:prompt_tokens_total", "vllm:generation_tokens_total":
			tokens += value
		}
	}
	return running, tokens
}
