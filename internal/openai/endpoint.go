package openai

import "tollgate/internal/usage"

// Endpoints lists every metered route once.
func Endpoints() []Endpoint {
	return []Endpoint{
		ChatCompletions, Completions, Embeddings, Responses, Messages,
		CountTokens, Score, Rerank, RerankV2, Pooling, Classify, Tokenize, Detokenize,
	}
}

// Format is the shape of the endpoint's answers.
func (ep Endpoint) Format() usage.Format {
	switch ep {
	case ChatCompletions:
		return usage.Chat
	case Completions:
		return usage.Completions
	case Responses:
		return usage.Responses
	case Messages:
		return usage.Messages
	case Embeddings, Score, Rerank, RerankV2, Pooling, Classify:
		return usage.Pooling
	case CountTokens, Tokenize, Detokenize:
		return usage.Free
	}
	return usage.Free
}

// Free reports whether requests to the route take no slot and cost no tokens.
func (ep Endpoint) Free() bool { return ep.Format() == usage.Free }

// Anthropic reports whether errors of the route have Anthropic's shape.
func (ep Endpoint) Anthropic() bool { return ep == Messages || ep == CountTokens }

// streams reports whether the route can answer with an event stream.
func (ep Endpoint) streams() bool {
	switch ep.Format() {
	case usage.Chat, usage.Completions, usage.Responses, usage.Messages:
		return true
	case usage.Pooling, usage.Free:
	}
	return false
}

// choices reports whether the route has n, stream_options and [DONE].
func (ep Endpoint) choices() bool { return ep == ChatCompletions || ep == Completions }
