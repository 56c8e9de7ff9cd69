package vllmsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Script says how one answer is given. It is the top-level body field "sim" of
// a request, laid over the defaults of [Control]. A nil or zero field changes
// nothing. A content chunk is a stream event that carries text or a part of a
// tool call; for an answer that is not streamed it is a token of every choice.
type Script struct {
	// Tokens is the length of each choice; max_tokens still cuts it.
	Tokens *int `json:"tokens,omitempty"`
	// Text replaces the sentences; without Tokens its end ends the answer.
	Text string `json:"text,omitempty"`
	// FirstDelayMS passes before the first event, DelayMS before every content chunk.
	FirstDelayMS *int `json:"first_delay_ms,omitempty"`
	DelayMS      *int `json:"delay_ms,omitempty"`

	// PauseAfter holds the answer after k content chunks until it is released.
	PauseAfter *int `json:"pause_after,omitempty"`
	// CutAfter closes the connection after k content chunks, as Cut says: "fin"
	// (default) or "rst".
	CutAfter *int   `json:"cut_after,omitempty"`
	Cut      string `json:"cut,omitempty"`
	// ErrorAfter writes an error event and [DONE] after k content chunks; not
	// streamed, it is a 500.
	ErrorAfter *int `json:"error_after,omitempty"`
	// EngineAbortAfter ends with finish_reason "abort" after k content chunks.
	EngineAbortAfter *int `json:"engine_abort_after,omitempty"`
	// ErrorStatus answers with that status and ErrorBody instead (default: an
	// error body of vLLM's shape).
	ErrorStatus int    `json:"error_status,omitempty"`
	ErrorBody   string `json:"error_body,omitempty"`
	// Hang never answers.
	Hang bool `json:"hang,omitempty"`

	// NoUsage leaves all usage out, NoDone the last event.
	NoUsage bool `json:"no_usage,omitempty"`
	NoDone  bool `json:"no_done,omitempty"`
	// UsageOverride replaces the final usage, RunningOverride every running one.
	UsageOverride   json.RawMessage `json:"usage_override,omitempty"`
	RunningOverride json.RawMessage `json:"running_override,omitempty"`
	// CachedTokens is reported as the cached part of the prompt.
	CachedTokens *int `json:"cached_tokens,omitempty"`
	// EmptyEvery makes every k-th token one without text.
	EmptyEvery int `json:"empty_every,omitempty"`
	// ToolCall makes tool_choice "auto" call the first tool.
	ToolCall bool `json:"tool_call,omitempty"`
	// RunAhead tokens per choice are generated beyond what was written when
	// the client leaves, as a busy engine does.
	RunAhead int `json:"run_ahead,omitempty"`

	// ChunkBytes writes in pieces of that size, Join puts k events into one
	// write, CRLF ends lines with \r\n, Comments puts a keep-alive comment
	// before every event, BigEvent adds that many bytes of text to the first
	// content chunk.
	ChunkBytes int  `json:"chunk_bytes,omitempty"`
	Join       int  `json:"join,omitempty"`
	CRLF       bool `json:"crlf,omitempty"`
	Comments   bool `json:"comments,omitempty"`
	BigEvent   int  `json:"big_event,omitempty"`
	// Raw (base64 in JSON) is sent as the whole body, with RawStatus (200) and
	// RawContentType (what the answer would have had).
	Raw            []byte `json:"raw,omitempty"`
	RawStatus      int    `json:"raw_status,omitempty"`
	RawContentType string `json:"raw_content_type,omitempty"`

	// Group counts the request under this name in [Stats] too.
	Group string `json:"group,omitempty"`
}

// Control changes the server: POST /sim/script, or [Sim.Script]. A nil field
// changes nothing.
type Control struct {
	// Defaults apply to every request that follows.
	Defaults *Script `json:"defaults,omitempty"`
	// NotReady cuts every connection outside /sim, which is as near to
	// "connection refused" as an open socket gets.
	NotReady *bool `json:"not_ready,omitempty"`
	// ReadyInMS is NotReady for that long: a slow start.
	ReadyInMS *int `json:"ready_in_ms,omitempty"`
	// Draining answers /health with 200 and new work with 500.
	Draining *bool `json:"draining,omitempty"`
	// Crash is "engine" (error events, then /health is 503) or "main" (all
	// connections are cut and the server is not ready). [Sim.Reset] heals both.
	Crash string `json:"crash,omitempty"`
}

// strictJSON decodes one value and refuses names it does not know, so that a
// misspelt script fails instead of doing nothing.
func strictJSON(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("decode script: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode script: more than one value")
	}
	return nil
}

// scriptOf is the script of a request: the defaults, and over them its own.
func (s *Sim) scriptOf(f fields) (*Script, *problem) {
	s.mu.Lock()
	defaults, raw := s.defaults, s.defaultsRaw
	s.mu.Unlock()
	own, ok := f.get("sim")
	if !ok {
		return defaults, nil
	}
	script := &Script{}
	if raw != nil { // decoded again: the pointers of defaults are shared
		if err := strictJSON(raw, script); err != nil {
			return nil, internalError(err.Error())
		}
	}
	if err := strictJSON(own, script); err != nil {
		return nil, invalid("body.sim", "value_error", err.Error(), repr(own))
	}
	if script.Cut != "" && script.Cut != cutFIN && script.Cut != cutRST {
		return nil, invalid("body.sim.cut", "value_error", `expected "fin" or "rst"`, script.Cut)
	}
	return script, nil
}

// The ways to close a connection in the middle.
const (
	cutFIN = "fin"
	cutRST = "rst"
)

// reached tells that a scripted mark is set and k has come to it.
func reached(mark *int, k int) bool { return mark != nil && k >= *mark }

// delay is the pause that a script asks for, or the default.
func delay(ms *int, otherwise time.Duration) time.Duration {
	if ms == nil {
		return otherwise
	}
	return time.Duration(*ms) * time.Millisecond
}
