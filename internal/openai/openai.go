// Package openai knows the format of the APIs of OpenAI and Anthropic: it checks and
// rewrites the body of a request, writes the body of an error, and turns a refusal into
// HTTP. It makes no decisions.
//
// It parses requests strictly (RFC 8259 with the refusals of docs/metering.md). vLLM
// receives exactly the bytes that were checked: [Parse] returns the rewritten body.
package openai

import (
	"tollgate/internal/media"
	"tollgate/internal/usage"
)

// Endpoint is one metered route by its canonical path, aliases folded.
type Endpoint string

// The metered routes.
const (
	ChatCompletions Endpoint = "/v1/chat/completions"
	Completions     Endpoint = "/v1/completions"
	Embeddings      Endpoint = "/v1/embeddings"
	Responses       Endpoint = "/v1/responses"
	Messages        Endpoint = "/v1/messages"
	CountTokens     Endpoint = "/v1/messages/count_tokens" //nolint:gosec // a path, not a credential
	Score           Endpoint = "/v1/score"
	Rerank          Endpoint = "/v1/rerank"
	RerankV2        Endpoint = "/v2/rerank"
	Pooling         Endpoint = "/pooling"
	Classify        Endpoint = "/classify"
	Tokenize        Endpoint = "/tokenize"
	Detokenize      Endpoint = "/detokenize"
)

// Limits bound one request. A bound below 1 counts as 1.
type Limits struct {
	MaxN       int // choices per prompt
	MaxPrompts int // prompts in one completions request; inputs to embed, score or rank are not prompts
	// Media says which URLs of pictures and the like may be fetched
	// (request.media_domains); nil: those on the public internet.
	Media *media.Policy
	// CacheSalt, when not empty, is set as cache_salt (request.isolate_prefix_cache).
	CacheSalt string
	// Served gives the name by which the engine is asked for a model, given the
	// client's own; "" leaves that. It is called at most once for each body that is
	// in order; nil: nothing is renamed.
	Served func(model string) string
	// Buffer gives the memory of a body that must be rewritten: empty, with room
	// for size bytes. It is called at most once for each body; nil: allocated.
	Buffer func(size int) []byte
}

// Request holds the wishes of a checked body.
type Request struct {
	Endpoint Endpoint
	// Body goes to vLLM. It is the client's own slice where nothing had to be rewritten,
	// and memory of Limits.Buffer otherwise.
	Body []byte
	// Model is the name that the client sent; Body may have another one, see
	// [Limits.Served].
	Model string
	// Stream is true when the answer will be an event stream.
	Stream bool
	// N is choices per prompt, Prompts the number of prompts (completions) or
	// of inputs (embeddings, score, rerank, pooling, classify); both at least 1.
	N, Prompts int
	// PromptBytes is the size of the text that will be tokenized, in bytes
	// (messages, prompt, input, tools; for token ids 4 bytes each; at most 4 KiB
	// for each picture, sound or file).
	PromptBytes int64
	// MaxTokens is the output bound per choice that the client gave, or -1.
	MaxTokens int64
	// MinTokens is the least output per choice that the client wants; 0 without one.
	MinTokens int64
	// WantsUsage: the client set stream_options.include_usage.
	WantsUsage bool
	// WantsRunning: the client set stream_options.continuous_usage_stats too.
	WantsRunning bool
	// Binary: the client wants bytes, not JSON: encoding_format "bytes" (usage in a
	// header) or "bytes_only" (no usage).
	Binary bool
	// Format is the shape of the answer.
	Format usage.Format

	source []byte            // the client's body
	parts  [promptParts]span // of its prompt
}
