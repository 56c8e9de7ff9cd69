package envoy

import (
	"regexp"
	"strings"
)

// route is one path that vLLM answers.
type route struct {
	Path    string
	Rewrite string // the whole path of an alias; empty otherwise
}

// Name is the route's name in Envoy's statistics and logs.
func (r route) Name() string { return strings.TrimPrefix(strings.ReplaceAll(r.Path, "/", "-"), "-") }

// inferenceRoutes are metered and take POST only.
var inferenceRoutes = []route{
	{Path: "/v1/chat/completions"},
	{Path: "/v1/completions"},
	{Path: "/v1/embeddings"},
	{Path: "/v1/responses"},
	{Path: "/v1/messages"},
	{Path: "/v1/messages/count_tokens"},
	{Path: "/v1/score"},
	{Path: "/v1/rerank"},
	{Path: "/tokenize"},
	{Path: "/detokenize"},
	{Path: "/chat/completions", Rewrite: "/v1/chat/completions"},
	{Path: "/completions", Rewrite: "/v1/completions"},
	{Path: "/embeddings", Rewrite: "/v1/embeddings"},
	{Path: "/score", Rewrite: "/v1/score"},
	{Path: "/rerank", Rewrite: "/v1/rerank"},
}

// modelRoutes are the model list and take GET only.
var modelRoutes = []route{
	{Path: "/v1/models"},
	{Path: "/models", Rewrite: "/v1/models"},
}

// direct is a path that Envoy answers itself.
type direct struct {
	Name   string
	Match  string // the YAML of a route match, without braces
	Status int
	Allow  string
}

// unroutedPaths come after all routes: known paths with a wrong method, then
// everything else.
func unroutedPaths() []direct {
	return []direct{
		{Name: "post-only", Match: onPaths(inferenceRoutes), Status: 405, Allow: "POST, OPTIONS"},
		{Name: "get-only", Match: onPaths(append([]route{{Path: "/metrics"}}, modelRoutes...)), Status: 405, Allow: "GET, OPTIONS"},
		{Name: "health-only", Match: "path: /health", Status: 405, Allow: "GET, HEAD, OPTIONS"},
		{Name: "admin-only", Match: "prefix: /admin/", Status: 405, Allow: "GET, POST, PATCH, DELETE, OPTIONS"},
		{Name: "unknown", Match: "prefix: /", Status: 404},
	}
}

// onPaths matches any of the paths exactly.
func onPaths(routes []route) string {
	paths := make([]string, 0, len(routes))
	for _, r := range routes {
		paths = append(paths, regexp.QuoteMeta(r.Path))
	}
	return `safe_regex: { regex: ` + quote(strings.Join(paths, "|")) + ` }`
}
