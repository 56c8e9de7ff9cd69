package route

import (
	"slices"
	"strings"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
)

const (
	// pageTimeout is enough for a page that is made from memory.
	pageTimeout = 2 * time.Second
	// slowTimeout is for pages that read the ledger, or all counters, first.
	slowTimeout = 10 * time.Second
	// adminTimeout is for what waits for an engine, or writes a file first.
	adminTimeout = time.Minute
)

var (
	get  = []string{"GET"}
	read = []string{"GET", "HEAD"}
	post = []string{"POST"}
	edit = []string{"GET", "POST", "PATCH", "DELETE"}
)

// aliases are bare paths that old clients use, and what they stand for.
var aliases = []struct {
	path string
	ep   openai.Endpoint
}{
	{"/chat/completions", openai.ChatCompletions},
	{"/completions", openai.Completions},
	{"/embeddings", openai.Embeddings},
	{"/score", openai.Score},
	{"/rerank", openai.Rerank},
}

var (
	table = build()
	exact = index(table)
)

// Table is every route, in the order in which they are matched: what engines
// answer, then tollgate's own pages.
func Table() []Route { return slices.Clone(table) }

func build() []Route {
	var t []Route
	for _, ep := range openai.Endpoints() {
		t = append(t, inference(string(ep), ep, ""))
	}
	for _, a := range aliases {
		t = append(t, inference(a.path, a.ep, string(a.ep)))
	}
	return append(t,
		page("v1-models", Models, Models, admission.Listing, get),
		page("models", "/models", Models, admission.Listing, get),
		Route{Name: "v1-models-id", Path: Models + "/", Prefix: true, Named: true, Endpoint: Models, Class: admission.Listing, Methods: get, Page: true, Timeout: pageTimeout},
		slow(page("v1-key", OwnKey, OwnKey, admission.Own, get)),
		slow(page("v1-usage", OwnUsage, OwnUsage, admission.Own, get)),
		slow(page("v1-requests", OwnRequests, OwnRequests, admission.Own, get)),
		page("root", Root, Root, admission.Open, read),
		Route{Name: "console", Path: Console, Prefix: true, Endpoint: Console, Class: admission.Open, Methods: read, Page: true, SameOrigin: true, Timeout: slowTimeout},
		page("health", Health, Health, admission.Open, read),
		Route{Name: "metrics", Path: Metrics, Endpoint: Metrics, Class: admission.Admin, Methods: get, Page: true, Private: true, SameOrigin: true, Timeout: slowTimeout},
		engines("admin-engines", Admin+"/engines", false),
		engines("admin-engine-address", Admin+"/engines/", true),
		Route{Name: "admin", Path: Admin + "/", Prefix: true, Endpoint: Admin, Class: admission.Admin, Methods: edit, Page: true, Private: true, SameOrigin: true, Timeout: adminTimeout},
	)
}

// page is the row of a page of tollgate.
func page(name, path, endpoint string, class admission.Class, methods []string) Route {
	return Route{Name: name, Path: path, Endpoint: endpoint, Class: class, Methods: methods, Page: true, Timeout: pageTimeout}
}

// engines is a row of the engines that come and go at run time, which launchers may
// open beside administrators.
func engines(name, path string, prefix bool) Route {
	return Route{
		Name: name, Path: path, Prefix: prefix, Endpoint: Admin, Class: admission.Engines, Methods: edit,
		Page: true, Private: true, SameOrigin: true, Timeout: slowTimeout,
	}
}

// slow is the row of a page that reads the ledger.
func slow(r Route) Route {
	r.Timeout = slowTimeout
	return r
}

// inference is the row of a path that an engine answers.
func inference(path string, ep openai.Endpoint, rewrite string) Route {
	class := admission.Inference
	if ep.Free() {
		class = admission.Counting
	}
	name := strings.TrimPrefix(strings.ReplaceAll(path, "/", "-"), "-")
	return Route{Name: name, Path: path, Rewrite: rewrite, Endpoint: string(ep), Class: class, Methods: post}
}

// index finds rows of exact paths.
func index(t []Route) map[string]int {
	out := make(map[string]int, len(t))
	for i, r := range t {
		if !r.Prefix {
			out[r.Path] = i
		}
	}
	return out
}
