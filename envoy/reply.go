package envoy

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
	Codec         bool   // may come from the codec, before any filter
}

// OnMessages is When for requests of Anthropic clients.
func (r reply) OnMessages() string { return "(" + r.When + ") && " + onMessages }

const (
	invalidRequest = "invalid_request_error"
	serverError    = "server_error"
)

// localReplies is the table of Envoy's own answers; the first match wins.
var localReplies = []reply{
	{
		// /health, /metrics and /admin: tollgate is down or hung.
		When:   `xds.cluster_name == "tollgate_http" && response.code >= 500`,
		Status: 503, Message: "The gateway is unavailable. Try again later.",
		Type: serverError, Code: "service_unavailable", Retry: true,
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
	{When: `response.code == 404`, Message: "Unknown path.", Type: invalidRequest, Code: "not_found", AnthropicType: "not_found_error"},
	{When: `response.code == 405`, Message: "Method not allowed on this path.", Type: invalidRequest, Code: "method_not_allowed", AnthropicType: invalidRequest},
	{When: `response.code == 408`, Message: "The request took too long to arrive.", Type: invalidRequest, Code: "request_timeout", AnthropicType: "timeout_error"},
	{When: `response.code == 413`, Message: "The request body is too large.", Type: invalidRequest, Code: "request_too_large", AnthropicType: "request_too_large"},
	{
		// An unknown transfer-encoding: the client's mistake.
		When: `response.code == 501`, Status: 400, Message: "Bad request (%RESPONSE_CODE_DETAILS%).",
		Type: invalidRequest, Code: "invalid_request", Codec: true,
	},
	{When: `response.code == 504`, Message: "The inference engine did not answer in time.", Type: serverError, Code: "timeout", AnthropicType: "timeout_error"},
	{
		When: `response.code >= 500`, Status: 503, Message: "The gateway is unavailable. Try again later.",
		Type: serverError, Code: "service_unavailable", AnthropicType: "api_error", Retry: true,
	},
	{
		When: `response.code >= 400`, Message: "Bad request (%RESPONSE_CODE_DETAILS%).",
		Type: invalidRequest, Code: "invalid_request", AnthropicType: invalidRequest, Codec: true,
	},
}
