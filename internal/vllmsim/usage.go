package vllmsim

import (
	"encoding/json"
	"strconv"
)

func appendInt(b []byte, name string, v int) []byte {
	return strconv.AppendInt(append(b, name...), int64(v), 10)
}

// appendCounts appends the three counts of every OpenAI usage, without braces.
func appendCounts(b []byte, prompt, completion int) []byte {
	b = appendInt(b, `"prompt_tokens":`, prompt)
	b = appendInt(b, `,"total_tokens":`, prompt+completion)
	return appendInt(b, `,"completion_tokens":`, completion)
}

// appendOverride appends what a script says instead, and tells whether it does.
func appendOverride(b []byte, usage json.RawMessage) ([]byte, bool) {
	if usage == nil {
		return b, false
	}
	return append(append(b, `,"usage":`...), usage...), true
}

// appendRunning appends the usage of one chunk of choice c, if p has it.
func (x *exchange) appendRunning(b []byte, p *plan, c *choice, tail string) []byte {
	if !p.running {
		return b
	}
	b, done := appendOverride(b, x.script.RunningOverride)
	if done {
		return b
	}
	b = appendCounts(append(b, `,"usage":{`...), c.prompt.tokens, c.sent)
	return append(append(b, tail...), '}')
}

// appendFinal appends the usage of the last chunk of a stream.
func (x *exchange) appendFinal(b []byte, p *plan, chat bool) []byte {
	b, done := appendOverride(b, x.script.UsageOverride)
	if done {
		return b
	}
	b = appendCounts(append(b, `,"usage":{`...), p.promptTokens(), p.completion())
	if x.sim.opts.TokenDetails {
		b = appendInt(b, `,"prompt_tokens_details":{"cached_tokens":`, p.cached)
		if chat {
			b = appendInt(b, `,"created_cache_tokens":`, p.created)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendWhole appends the usage of an answer that is not streamed.
func (x *exchange) appendWhole(b []byte, p *plan) []byte {
	if x.script.NoUsage {
		return b
	}
	b, done := appendOverride(b, x.script.UsageOverride)
	if done {
		return b
	}
	b = appendCounts(append(b, `,"usage":{`...), p.promptTokens(), p.completion())
	if x.sim.opts.TokenDetails {
		b = appendInt(b, `,"prompt_tokens_details":{"cached_tokens":`, p.cached)
		b = appendInt(b, `,"created_cache_tokens":`, p.created)
		b = append(b, `,"multimodal_tokens":null}`...)
	} else {
		b = append(b, `,"prompt_tokens_details":null`...)
	}
	return append(b, `,"completion_tokens_details":null}`...)
}

// appendSpeed appends the per-request metrics: null when they are off.
func (x *exchange) appendSpeed(b []byte, tokens int) []byte {
	if !x.sim.opts.RequestMetrics {
		return append(b, `,"metrics":null`...)
	}
	b = x.appendSpeedValues(append(b, `,"metrics":{`...), tokens)
	return append(b, `,"speculative_decoding":null}`...)
}

// appendStreamSpeed is the same for the last chunk of a stream.
func (x *exchange) appendStreamSpeed(b []byte, tokens int) []byte {
	if !x.sim.opts.RequestMetrics {
		return b
	}
	return append(x.appendSpeedValues(append(b, `,"metrics":{`...), tokens), '}')
}

func (x *exchange) appendSpeedValues(b []byte, tokens int) []byte {
	first, total, each, rate := x.speed(tokens)
	b = append(append(b, `"time_to_first_token_ms":`...), pythonFloat(first)...)
	b = append(append(b, `,"generation_time_ms":`...), pythonFloat(total)...)
	b = append(b, `,"queue_time_ms":0.01`...)
	b = append(b, `,"mean_itl_ms":`...)
	if tokens > 1 {
		b = append(b, pythonFloat(each)...)
	} else {
		b = append(b, "null"...)
	}
	return append(append(b, `,"tokens_per_second":`...), pythonFloat(rate)...)
}

// appendFingerprint appends the fingerprint as the last chunk of a stream has it.
func (x *exchange) appendFingerprint(b []byte) []byte {
	if x.sim.opts.NoFingerprint {
		return b
	}
	return append(b, `,"system_fingerprint":"`+fingerprint+`"`...)
}

// wholeFingerprint is the value in an answer that is not streamed.
func (x *exchange) wholeFingerprint() string {
	if x.sim.opts.NoFingerprint {
		return "null"
	}
	return `"` + fingerprint + `"`
}

// pythonFloat writes v as Python does: a whole number keeps its ".0".
func pythonFloat(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if v == float64(int64(v)) {
		s = strconv.FormatFloat(v, 'f', 1, 64)
	}
	return s
}
