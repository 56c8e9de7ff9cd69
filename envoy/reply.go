package envoy

import (
	"tollgate/internal/admission"
	"tollgate/internal/openai"
)

// onMessages matches the routes whose clients expect Anthropic's error shape.
// Codec errors have no request; there the expression is no match.
const onMessages = `(request.url_path == "/v1/messages" || request.url_path.startsWith("/v1/messages/"))`

// ownReply matches what tollgate itself answered.
const ownReply = `response.code_details == "ext_authz_denied" || response.code_details.startsWith("tollgate_")`

// reply is one of Envoy's local replies as clients see it.
type reply struct {
	When          string // CEL over response and xds attributes only
	Status        int    // replaces Envoy's; 0 keeps it
	Message       string // an Envoy format string
	Type          string // OpenAI's error.type
	Code          string // OpenAI's error.code
	AnthropicType string // error.type on /v1/messages; empty where no such request can end so
	Retry         bool   // adds retry-after
	NoRetry       bool   // adds x-should-retry: false: a repetition must fail
	Codec         bool   // may come from the codec, before any filter
}

// OnMessages is When for requests of Anthropic clients.
func (r reply) OnMessages() string { return "(" + r.When + ") && " + onMessages }

const (
	invalidRequest = "invalid_request_error"
	serverError    = "server_error"
)

// unreadable is what tollgate says where it meters itself.
var unreadable = openai.Denied(admission.BadAnswer)

// localReplies is the table of Envoy's own answers; the first match wins.
var localReplies = []reply{
	{
		// /health, /metrics and /admin: tollgate is down or hung.
		When:   `xds.cluster_name == "tollgate_http" && response.code >= 500`,
		Status: 503, Message: "The gateway is unavailable. Try again later.",
		Type: serverError, Code: "service_unavailable", Retry: true,
	},
	{
		// The meter inside Envoy kept back what nobody could have counted.
		When: `response.code_details == "meter_unreadable"`, Status: unreadable.Status, Message: unreadable.Message,
		Type: unreadable.Type, Code: unreadable.Code, AnthropicType: "api_error", NoRetry: unreadable.NoRetry,
	},
	{
		// Message timeouts of ext_proc come as 504, invalid answers to Check as 500.
		When:   `response.code_details.startsWith("ext_proc_error") || response.code_details.startsWith("ext_authz_")`,
		Status: 503, Message: "The gateway is unavailable. Try again later.",
		Type: serverError, Code: "service_unavailable", AnthropicType: "api_error", Retry: true,
	},
	{
		// No healthy host, connection refused, connect timeout, reset before an answer.
		When:   `response.code_details.startsWith("no_healthy_upstream") || response.code_details.startsWith("upstream_reset_")`,
		Status: 503, Message: "The inference engine is unavailable. Try again later.",
		Type: serverError, Code: "engine_unavailable", AnthropicType: "overloaded_error", Retry: true,
	},
	{
		// Any offer of another protocol but h2c. 426 is what WebSocket clients fall back at.
		When: `response.code_details == "upgrade_failed"`, Status: 426,
		Message: "No other protocol is spoken here; send plain HTTP requests, with 'stream': true for an event stream.",
		Type:    invalidRequest, Code: "upgrade_required", AnthropicType: invalidRequest, NoRetry: true,
	},
	{When: `response.code == 404`, Message: "Unknown path.", Type: invalidRequest, Code: "not_found", AnthropicType: "not_found_error"},
	{
		When: `response.code == 408`, Message: "The request took too long to arrive; send its headers within 10 s and its body within request.body_timeout.",
		Type: invalidRequest, Code: "request_timeout", AnthropicType: "timeout_error", NoRetry: true,
	},
	{
		When: `response.code == 413`, Message: "The request body is larger than request.max_body_mb allows; send a smaller one.",
		Type: invalidRequest, Code: "request_too_large", AnthropicType: "request_too_large", NoRetry: true,
	},
	{
		When: `response.code == 504`, Message: "The inference engine did not answer in time.",
		Type: serverError, Code: "timeout", AnthropicType: "timeout_error", NoRetry: true,
	},
	refusedHTTP(`response.code_details == "missing_host_header"`, "HTTP/1.1 needs a Host header; send one."),
	refusedHTTP(`response.code_details == "http.invalid_authority"`, "The Host header is no name of a host; send HOST or HOST:PORT."),
	refusedHTTP(`response.code_details == "path_normalization_failed"`, "The path has a byte or an escape that no route has; send the path as the documentation writes it, without '#' and escaped control characters."),
	refusedHTTP(`response.code_details.endsWith("headers_too_large")`, "The request line and the headers are larger than 60 KiB; send fewer or shorter headers."),
	refusedHTTP(`response.code_details.endsWith("too_many_headers")`, "There are more than 100 headers; send fewer."),
	refusedHTTP(`response.code_details.endsWith("invalid_characters")`, "A header has a byte that HTTP does not allow; remove it."),
	refusedHTTP(`response.code_details.endsWith("content_length_and_chunked_not_allowed")`, "Content-Length and Transfer-Encoding exclude each other; send one of them."),
	{
		// Envoy says 501, or 400 for a chunked body within a chunked body.
		When: `response.code_details.endsWith("transfer_encoding") || response.code == 501`, Status: 400,
		Message: "The only Transfer-Encoding that is read is 'chunked'; send the body so, or with Content-Length.",
		Type:    invalidRequest, Code: "invalid_request", AnthropicType: invalidRequest, NoRetry: true, Codec: true,
	},
	refusedHTTP(`response.code_details.endsWith("https_url_on_plaintext_connection")`, "The request asks for an https address over a connection without TLS; use an http address, or connect with TLS."),
	refusedHTTP(`response.code_details == "http1.codec_error"`, "This is not a well-formed HTTP/1.1 request; check the request line, the names of headers, Content-Length and the sizes of chunks. A client that speaks TLS must use an http address here, unless the gateway has tls."),
	{
		When: `response.code >= 500`, Status: 503, Message: "The gateway is unavailable. Try again later.",
		Type: serverError, Code: "service_unavailable", AnthropicType: "api_error", Retry: true,
	},
	refusedHTTP(`response.code >= 400`, "The gateway does not take this request as it is written; send a plain HTTP/1.1 or HTTP/2 request."),
}

// refusedHTTP is the answer to what Envoy itself does not take: the client's
// mistake, whatever the status. The message says what to change, never what Envoy
// calls it.
func refusedHTTP(when, message string) reply {
	return reply{
		When: when, Message: message,
		Type: invalidRequest, Code: "invalid_request", AnthropicType: invalidRequest, NoRetry: true, Codec: true,
	}
}
