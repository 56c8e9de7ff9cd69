package vllmsim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Script applies c. It fails on values that mean nothing, and then changes nothing.
func (s *Sim) Script(c Control) error {
	if c.Crash != "" && c.Crash != "engine" && c.Crash != "main" {
		return fmt.Errorf("script crash %q: want \"engine\" or \"main\"", c.Crash)
	}
	var raw []byte
	if c.Defaults != nil {
		if cut := c.Defaults.Cut; cut != "" && cut != cutFIN && cut != cutRST {
			return fmt.Errorf("script cut %q: want %q or %q", cut, cutFIN, cutRST)
		}
		var err error
		if raw, err = json.Marshal(c.Defaults); err != nil {
			return fmt.Errorf("script defaults: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Defaults != nil {
		copied := *c.Defaults
		s.defaults, s.defaultsRaw = &copied, raw
	}
	if c.NotReady != nil {
		s.notReady = *c.NotReady
	}
	if c.ReadyInMS != nil {
		s.readyAt = time.Now().Add(time.Duration(*c.ReadyInMS) * time.Millisecond)
	}
	if c.Draining != nil {
		s.draining = *c.Draining
	}
	switch c.Crash {
	case "engine":
		s.life.end(errDead)
	case "main":
		s.life.end(errCut)
		s.notReady = true
	}
	return nil
}

// Stop ends every running request as SIGTERM does without a drain: with
// finish_reason "abort", its usage and [DONE]. New ones get a 500 until [Sim.Reset].
func (s *Sim) Stop() {
	l, _ := s.current()
	l.end(errStopped)
}

// Reset puts everything back to the start: scripts, adapters, totals and
// counters; ended requests are forgotten. What runs is cut, and counted in the
// old totals only.
func (s *Sim) Reset() {
	s.mu.Lock()
	s.life.end(errCut)
	s.life, s.tally = newLife(), newTally()
	s.defaults, s.defaultsRaw = &Script{}, nil
	s.notReady, s.readyAt, s.draining = false, time.Time{}, false
	s.prefixes = newPrefixCache(s.opts.BlockSize, s.opts.CacheBlocks)
	s.resetAdapters()
	s.mu.Unlock()
	s.records.reset()
}

// control answers /sim, which a gateway never routes to.
func (s *Sim) control(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /sim/truth":
		s.showTruth(w, r)
	case "GET /sim/stats":
		writeValue(w, http.StatusOK, s.Stats())
	case "POST /sim/release":
		n := s.records.release(r.URL.Query().Get("request_id"))
		writeValue(w, http.StatusOK, map[string]int{"released": n})
	case "POST /sim/script":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var c Control
		if err = strictJSON(body, &c); err == nil {
			err = s.Script(c)
		}
		if err != nil {
			writeValue(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		writeValue(w, http.StatusOK, map[string]bool{"ok": true})
	case "POST /sim/reset":
		s.Reset()
		writeValue(w, http.StatusOK, map[string]bool{"ok": true})
	case "POST /sim/exit":
		s.exit(w, r)
	default:
		writeValue(w, http.StatusNotFound, map[string]string{"error": "see --help for what /sim answers"})
	}
}

// showTruth answers with one truth by request_id, after its end if wait_ms is
// given, or with all of them.
func (s *Sim) showTruth(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("request_id")
	if id == "" {
		writeValue(w, http.StatusOK, map[string][]Truth{"requests": s.Truths()})
		return
	}
	t, ok := s.Truth(id)
	if ms, err := strconv.Atoi(r.URL.Query().Get("wait_ms")); ok && err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(ms)*time.Millisecond)
		defer cancel()
		t, _ = s.WaitEnd(ctx, id) // not ended in time: ended_at says so
	}
	if !ok {
		writeValue(w, http.StatusNotFound, map[string]string{"error": "no request with that id"})
		return
	}
	writeValue(w, http.StatusOK, t)
}

// exit asks [Serve] to return an [ExitError], without any goodbye.
func (s *Sim) exit(w http.ResponseWriter, r *http.Request) {
	code := 0
	if given := r.URL.Query().Get("code"); given != "" {
		var err error
		if code, err = strconv.Atoi(given); err != nil || code < 0 || code > 255 {
			writeValue(w, http.StatusBadRequest, map[string]string{"error": "code is a number from 0 to 255"})
			return
		}
	}
	writeValue(w, http.StatusAccepted, map[string]int{"code": code})
	_ = http.NewResponseController(w).Flush() // the answer goes out before the end; a client that is gone does not matter
	select {
	case s.exited <- code:
	default: // it is going already
	}
}

func writeValue(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
	}
	writeJSON(w, status, append(b, '\n'))
}
