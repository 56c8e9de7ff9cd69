package envoy

import "strings"

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
	{Path: "/v2/rerank"},
	{Path: "/pooling"},
	{Path: "/classify"},
	{Path: "/tokenize"},
	{Path: "/detokenize"},
	{Path: "/chat/completions", Rewrite: "/v1/chat/completions"},
	{Path: "/completions", Rewrite: "/v1/completions"},
	{Path: "/embeddings", Rewrite: "/v1/embeddings"},
	{Path: "/score", Rewrite: "/v1/score"},
	{Path: "/rerank", Rewrite: "/v1/rerank"},
}

// modelRoutes are the model list, which tollgate answers, and take GET only.
var modelRoutes = []route{
	{Path: "/v1/models"},
	{Path: "/models"},
}

// personalRoutes are what a key may know of itself; tollgate answers them, GET only.
var personalRoutes = []route{
	{Path: "/v1/key"},
	{Path: "/v1/usage"},
	{Path: "/v1/requests"},
}
