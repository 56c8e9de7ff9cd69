// Package genai knows the names that OpenTelemetry's semantic conventions for generative
// AI have for a finished request: the attributes of its span, and the metrics. It has no
// place for the text of a prompt or an answer.
package genai

import (
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
	"tollgate/internal/usage"
)

// provider is what this gateway is of: every engine is a vLLM.
const provider = "vllm"

// Version is a version of the conventions. The zero value is that of programs that were
// written before the names changed, 1.36.
type Version struct{ latest bool }

// FromEnvironment returns the version that OTEL_SEMCONV_STABILITY_OPT_IN asks for.
func FromEnvironment() Version {
	asked := strings.Split(os.Getenv("OTEL_SEMCONV_STABILITY_OPT_IN"), ",")
	return Version{latest: slices.ContainsFunc(asked, func(s string) bool { return strings.TrimSpace(s) == "gen_ai_latest_experimental" })}
}

// Latest reports whether the names are those of the latest version. Only then there are
// metrics by these names.
func (v Version) Latest() bool { return v.latest }

// providerKey is the attribute that says whose the model's server is.
func (v Version) providerKey() string {
	if v.latest {
		return "gen_ai.provider.name"
	}
	return "gen_ai.system"
}

// operation is the conventions' word for what an endpoint does; where they have none its
// own.
func operation(endpoint string) string {
	switch ep := openai.Endpoint(endpoint); ep {
	case openai.ChatCompletions, openai.Responses, openai.Messages:
		return "chat"
	case openai.Completions:
		return "text_completion"
	case openai.Embeddings, openai.Pooling:
		return "embeddings"
	case openai.RerankV2:
		return "rerank"
	case openai.Score, openai.Rerank, openai.Classify, openai.Tokenize, openai.Detokenize, openai.CountTokens:
		return endpoint[strings.LastIndexByte(endpoint, '/')+1:]
	}
	return "other"
}

// Name is the name of the span of a request.
func Name(a *admission.Access) string {
	if a.RequestedModel == "" {
		return operation(a.Endpoint)
	}
	return operation(a.Endpoint) + " " + a.RequestedModel
}

// Attributes are what the span of a request says. failed is what went wrong, "" when
// nothing did.
func (v Version) Attributes(a *admission.Access, failed string) []attribute.KeyValue {
	set := make([]attribute.KeyValue, 0, 24)
	text := func(name, value string) {
		if value != "" {
			set = append(set, attribute.String(name, value))
		}
	}
	number := func(name string, n int64) { set = append(set, attribute.Int64(name, n)) }
	text("gen_ai.operation.name", operation(a.Endpoint))
	text(v.providerKey(), provider)
	text("gen_ai.request.model", a.RequestedModel)
	text("http.route", a.Endpoint)
	text("http.request.method", a.Method)
	text("error.type", failed)
	text("tollgate.request.id", a.RequestID)
	text("tollgate.lease.id", a.LeaseID)
	text("tollgate.key.id", a.KeyID)
	text("tollgate.requested_model", a.RequestedModel)
	if a.Status != 0 {
		number("http.response.status_code", int64(a.Status))
	}
	if a.Reason == "" {
		return set // nothing was recorded: no engine and no tokens
	}
	text("gen_ai.response.model", a.Model)
	text("tollgate.engine", a.Engine)
	if host, port, err := net.SplitHostPort(a.Engine); err == nil {
		text("server.address", host)
		if n, err := strconv.ParseInt(port, 10, 64); err == nil {
			number("server.port", n)
		}
	}
	text("tollgate.end_reason", string(a.Reason))
	text("tollgate.quality", string(a.Quality))
	set = append(set, attribute.Bool("tollgate.stream", a.Stream))
	if a.FirstByte > 0 {
		set = append(set, attribute.Float64("tollgate.time_to_first_byte", a.FirstByte.Seconds()))
	}
	number("gen_ai.usage.input_tokens", max(0, a.Counts.Prompt))
	number("gen_ai.usage.output_tokens", max(0, a.Counts.Completion))
	if a.Counts.Cached != usage.Unsaid {
		number("tollgate.cached_tokens", a.Counts.Cached)
		if v.latest {
			number("gen_ai.usage.cache_read.input_tokens", a.Counts.Cached)
		}
	}
	return set
}
