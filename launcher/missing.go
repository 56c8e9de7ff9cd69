package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"tollgate/internal/vllm"
)

const (
	// askEvery is how many checks of the edge (ten a second) come between two questions
	// to engines that the edge does not use.
	askEvery = 10
	// answerWithin bounds such a question.
	answerWithin = 2 * time.Second
)

// askEngines finds out why the edge has no engine and logs it once for each reason.
func (h *host) askEngines() {
	ctx, cancel := context.WithTimeout(h.stopping, answerWithin)
	defer cancel()
	addresses := h.cfg.EngineAddresses()
	said := make([]string, len(addresses))
	var wg sync.WaitGroup
	for i, address := range addresses {
		wg.Go(func() {
			if err := engineClient(address, &h.cfg.VLLM).Ready(ctx); err != nil {
				said[i] = "waiting for vLLM at " + address + ": " + inShort(err)
			}
		})
	}
	wg.Wait()
	var missing []string
	for _, s := range said {
		if s != "" {
			missing = append(missing, s)
		}
	}
	text := strings.Join(missing, "; ")
	if text == "" {
		text = "waiting for the edge to see vLLM"
	}
	before := h.missing.Swap(&text)
	if h.stopping.Err() == nil && len(missing) > 0 && (before == nil || *before != text) {
		h.log.Warn(text)
	}
}

// inShort shortens an error of the network for people.
func inShort(err error) string {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return number.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	}
	var status *vllm.StatusError
	if errors.As(err, &status) && status.Status == http.StatusUnauthorized {
		return err.Error() + "; vllm.api_key_file must hold its key"
	}
	return err.Error()
}
