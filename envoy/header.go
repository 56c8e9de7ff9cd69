package envoy

// requestHeaders never reach an engine: credentials, addresses, other names for the
// host, the method and the path, and headers that vLLM would obey. traceparent is not
// among them: an engine's spans belong to the client's trace, or are children of the
// span that the check has put there.
var requestHeaders = []string{
	"authorization", "x-api-key", "api-key", "proxy-authorization", "cookie",
	"accept-encoding", "x-session-id", "endpoint-load-metrics-format", "x-data-parallel-rank",
	"forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip",
	"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url",
}

// requestFamilies are beginnings of names that never reach an engine. Those of Open
// WebUI name people.
var requestFamilies = []string{"x-forwarded-", "x-envoy-", "x-vllm-", "x-tollgate-said-", "x-openwebui-user-"}

// responseHeaders of an engine, or of a proxy in front of it, go no further: they
// would speak for the gateway, to browsers and to the client's next proxy.
var responseHeaders = []string{
	"alt-svc", "clear-site-data", "proxy-authenticate", "refresh", "set-cookie", "set-cookie2",
	"strict-transport-security", "via", "www-authenticate", "x-powered-by", "x-sendfile",
}

// responseFamilies are beginnings of names that an engine may not say.
var responseFamilies = []string{"access-control-", "x-accel-", "x-envoy-", "x-quota-", "x-ratelimit-"}
