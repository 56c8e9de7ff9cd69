// Package route is the table of routes (docs/routes.md) as code: which method and path is
// which canonical endpoint, and what it consumes. Envoy's routes are the same
// table as configuration (envoy/envoy.yaml); a test of that package compares
// the two.
package route

import (
	"slices"
	"strings"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
)

// Canonical names of the routes that are no inference endpoint.
const (
	Root    = "/"
	Health  = "/health"
	Metrics = "/metrics"
	Models  = "/v1/models" // the list, and below it each of its entries
	Admin   = "/admin"
	Console = "/console/" // and all below it: the pages for people
	// What a key may know of itself.
	OwnKey      = "/v1/key"
	OwnUsage    = "/v1/usage"
	OwnRequests = "/v1/requests"
	// Other stands for every path that the gateway does not have, so that label
	// sets stay closed.
	Other = "other"
)

// What the answer to a check tells tollgate's own pages. Only a check sets these
// headers: what a client sends under such a name is removed or overwritten there.
const (
	// InsiderHeader tells the page of /health, with the value "yes", that the client
	// may see all of it.
	InsiderHeader = "x-tollgate-insider"
	// KeyHeader is the id of the key that may pass.
	KeyHeader = "x-tollgate-key"
	// RefusalHeader is the reason of a refusal that the page must answer, because
	// Envoy would turn the status of its own answer into 200 (gRPC).
	RefusalHeader = "x-tollgate-refusal"
	// WaitHeader is the wait of that refusal in milliseconds, where it has one.
	WaitHeader = "x-tollgate-wait"
)

// Doors are the listeners that a check may be told of, where admin_listen gives
// administrators one of their own. Without, no door is named and all paths are there.
const (
	Public  = "public"
	Private = "private"
)

// Behind reports whether the route is behind the door: those that are private
// behind theirs, all others behind the public one, and open pages behind both.
func (r Route) Behind(door string) bool {
	switch door {
	case Public:
		return !r.Private
	case Private:
		return r.Private || r.Class == admission.Open && len(r.Methods) > 0
	}
	return true
}

// Route is one row.
type Route struct {
	Endpoint string // canonical path
	Class    admission.Class
	Methods  []string // beside OPTIONS, which is for preflights; none where there is no such path
	// Page: tollgate answers, not an engine.
	Page bool
	// Private: for administrators, behind a listener of its own where there is one,
	// and not for pages of another origin.
	Private bool
	// SameOrigin: not for pages of another origin, so it has no preflight.
	SameOrigin bool
}

// Allow is the value of the allow header; "" where there is no such path.
func (r Route) Allow() string {
	if len(r.Methods) == 0 {
		return ""
	}
	return strings.Join(r.Methods, ", ") + ", OPTIONS"
}

// Find returns the row of a path (a query is ignored) and whether the gateway
// takes the method there.
func Find(method, path string) (Route, bool) {
	r := Of(path)
	return r, slices.Contains(r.Methods, method)
}

var (
	get  = []string{"GET"}
	read = []string{"GET", "HEAD"}
	post = []string{"POST"}
	edit = []string{"GET", "POST", "PATCH", "DELETE"}
)

// Of is the row of a path, whatever the method; without methods where the gateway
// has no such path.
func Of(path string) Route {
	path, _, _ = strings.Cut(path, "?")
	if ep, ok := openai.Canonical(path); ok {
		class := admission.Inference
		if ep.Free() {
			class = admission.Counting
		}
		return Route{Endpoint: string(ep), Class: class, Methods: post}
	}
	switch {
	case path == Root:
		return Route{Endpoint: Root, Class: admission.Open, Methods: read, Page: true}
	case path == Health:
		return Route{Endpoint: Health, Class: admission.Open, Methods: read, Page: true}
	case strings.HasPrefix(path, Console) && !escapedSlash(path):
		return Route{Endpoint: Console, Class: admission.Open, Methods: read, Page: true, SameOrigin: true}
	case path == OwnKey, path == OwnUsage, path == OwnRequests:
		return Route{Endpoint: path, Class: admission.Own, Methods: get, Page: true}
	case path == Metrics:
		return Route{Endpoint: Metrics, Class: admission.Admin, Methods: get, Page: true, Private: true, SameOrigin: true}
	case path == Models, path == "/models":
		return Route{Endpoint: Models, Class: admission.Listing, Methods: get, Page: true}
	case len(path) > len(Models)+1 && strings.HasPrefix(path, Models+"/"):
		// What follows is one name, slashes included: clients escape them or not.
		return Route{Endpoint: Models, Class: admission.Listing, Methods: get, Page: true}
	case strings.HasPrefix(path, Admin+"/") && !escapedSlash(path):
		return Route{Endpoint: Admin, Class: admission.Admin, Methods: edit, Page: true, Private: true, SameOrigin: true}
	}
	return Route{Endpoint: Other, Class: admission.Admin}
}

// escapedSlash: Envoy leaves %2F and %5C as they are, because the name of a model
// may have one. Whoever decodes them makes another path of it, so no other path
// may have one.
func escapedSlash(path string) bool {
	lower := strings.ToLower(path)
	return strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c")
}

// Label is the canonical endpoint of a path for logs and metrics, whatever
// its method; [Other] where the gateway has none.
func Label(path string) string { return Of(path).Endpoint }
