package openai

import "strings"

// rule reads the value of one top-level field; a nil rule lets it through.
type rule func(*parser) error

// fields are the top-level names that vLLM or the OpenAI and Anthropic APIs
// know. A name outside of it passes as it is (vLLM ignores it), unless it is a
// spelling of one of these that another JSON reader would take for it.
var fields = buildFields()

// removed are the fields with which a client could change what belongs to the gateway
// or to other clients: places in the queue, the identity of a request in the engine,
// the shared cache, transfers between engines, adapters by path.
var removed = []string{
	"priority", "request_id", "session_id", "cache_salt", "kv_transfer_params", "ec_transfer_params",
	"vllm_xargs", "data_parallel_rank", "data_parallel_rank_local", "lora_path", "lora_local_path",
	"lora_request", "lora_name", "lora_int_id", "lora_modules",
}

// passed are known fields that need no check.
var passed = []string{
	"add_generation_prompt", "add_special_tokens", "allowed_token_ids", "audio", "bad_words",
	"chat_template", "chat_template_kwargs", "container", "context_management", "continue_final_message",
	"conversation", "dimensions", "embed_dtype", "enable_response_messages", "endianness", "extra_body",
	"frequency_penalty", "function_call", "guided_choice", "guided_grammar", "guided_json", "guided_regex",
	"ignore_eos", "include", "include_reasoning", "include_stop_str_in_output", "length_penalty",
	"logit_bias", "logits_processors", "logprob_token_ids", "logprobs", "max_tool_calls", "mcp_servers",
	"media_io_kwargs", "metadata", "min_p", "mm_processor_kwargs", "modalities", "normalize",
	"output_config", "parallel_tool_calls", "prediction", "presence_penalty", "previous_input_messages",
	"previous_response_id", "prompt_cache_key", "prompt_cache_retention", "prompt_logprobs",
	"reasoning", "reasoning_effort", "repetition_detection", "repetition_penalty", "response_format",
	"return_token_ids", "return_token_strs", "return_tokens_as_token_ids", "safety_identifier", "seed",
	"service_tier", "skip_special_tokens", "softmax", "spaces_between_special_tokens", "stop",
	"stop_sequences", "stop_token_ids", "structured_outputs", "suffix", "temperature", "thinking",
	"thinking_token_budget", "tool_choice", "top_k", "top_logprobs", "top_n", "top_p",
	"truncate_prompt_tokens", "truncation", "truncation_side", "use_activation", "user", "verbosity",
	"web_search_options",
}

// fetched are the fields in which vLLM looks for pictures, sounds and films. In other
// fields, such as tools and metadata, a URL is only text.
var fetched = map[string]bool{
	"messages": true, "system": true, "instructions": true, "query": true, "prompt": true, "input": true, "documents": true,
	"text_1": true, "text_2": true, "data_1": true, "data_2": true, "queries": true, "items": true, "previous_input_messages": true,
}

func buildFields() map[string]rule {
	m := map[string]rule{
		"model":                 (*parser).model,
		"stream":                func(p *parser) error { return p.flag("stream", &p.stream) },
		"stream_options":        (*parser).streamOptions,
		"n":                     func(p *parser) error { return p.count("n", &p.n) },
		"best_of":               func(p *parser) error { return p.count("best_of", &p.bestOf) },
		"max_tokens":            func(p *parser) error { return p.bound(atMaxTokens, &p.maxTokens) },
		"max_completion_tokens": func(p *parser) error { return p.bound(atMaxCompletion, &p.maxCompletion) },
		"max_output_tokens":     func(p *parser) error { return p.bound(atMaxOutput, &p.maxOutput) },
		"min_tokens":            func(p *parser) error { return p.count("min_tokens", &p.minTokens) },
		"use_beam_search":       func(p *parser) error { return p.mustBeOff("use_beam_search") },
		"background":            func(p *parser) error { return p.mustBeOff("background") },
		"echo":                  func(p *parser) error { return p.flag("echo", new(bool)) },
		"store":                 func(p *parser) error { return p.flag("store", new(bool)) },
		"encoding_format":       (*parser).encodingFormat,
		"prompt":                part(partPrompt, (*parser).prompt),
		"prompt_embeds":         (*parser).promptEmbeds,
		"tools":                 part(partTools, (*parser).raw),
		"functions":             part(partFunctions, (*parser).raw),
		"messages":              part(partMessages, (*parser).words),
		"system":                part(partSystem, (*parser).words),
		"instructions":          part(partInstructions, (*parser).words),
		"query":                 (*parser).words,
		"input":                 part(partInput, (*parser).inputs),
	}
	for _, name := range []string{
		"documents", "text_1", "text_2", "data_1", "data_2", "queries", "items", "tokens",
	} {
		m[name] = (*parser).inputs
	}
	for _, name := range removed {
		m[name] = (*parser).remove
	}
	for _, name := range passed {
		m[name] = nil
	}
	return m
}

// fold returns a name in the form in which case-insensitive readers compare it. Besides
// the ASCII capitals only four runes become an ASCII letter in some folding: long s,
// the Kelvin sign, and Turkish i with and without its dot.
func fold(key []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r == 'ſ':
			return 's'
		case r == '\u212a': // K
			return 'k'
		case r == 'İ' || r == 'ı':
			return 'i'
		}
		return r
	}, string(key))
}

// lowercase is true when folding cannot change a name.
func lowercase(key []byte) bool {
	for _, c := range key {
		if c >= 'A' && c <= 'Z' || c >= 0x80 {
			return false
		}
	}
	return true
}
