// Package openai is the wire: it checks and rewrites a request body, writes
// error bodies, and turns a refusal into HTTP. It decides nothing.
//
// Requests are parsed strictly (RFC 8259 with the refusals of docs/metering.md) and
// what vLLM receives is what was checked: [Parse] returns the rewritten body.
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

// Limits bound what one request may ask for. A bound below 1 counts as 1.
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

// Request is what a body asks for, after the checks.
type Request struct {
	Endpoint Endpoint
	// Body is what vLLM gets: the client's own bytes where nothing had to be
	// rewritten, memory of Limits.Buffer otherwise.
	Body []byte
	// Model is what the client asked for; Body may have another name, see
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
	// WantsRunning: and continuous_usage_stats.
	WantsRunning bool
	// Binary: the answer is to be bytes, not JSON (encoding_format "bytes", whose
	// usage is in a header, or "bytes_only", which has none).
	Binary bool
	// Format is the shape of the answer.
	Format usage.Format

	source []byte            // the client's body
	parts  [promptParts]span // of its prompt
}
