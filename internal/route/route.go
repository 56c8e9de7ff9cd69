// Package route is the table of routes (docs/routes.md) as code: which method and path is
// which canonical endpoint, what it consumes, and who answers. It is the only one:
// Envoy's routes are rendered from it.
package route

import (
	"slices"
	"strings"
	"time"

	"tollgate/internal/admission"
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
	// LocalHeader tells, with the value "yes", that the client is on the machine of its
	// Envoy. It is believed where that Envoy is on this host.
	LocalHeader = "x-tollgate-local"
	// ClientHeader is the address of its client.
	ClientHeader = "x-tollgate-client"
	// RefusalHeader is the reason of a refusal that the page must answer, because
	// Envoy would turn the status of its own answer into 200 (gRPC).
	RefusalHeader = "x-tollgate-refusal"
	// WaitHeader is the wait of that refusal in milliseconds, where it has one.
	WaitHeader = "x-tollgate-wait"
)

// Said are the headers that only a check may set, and those that earlier versions set:
// another replica may still be one.
func Said() []string {
	return []string{LocalHeader, ClientHeader, RefusalHeader, WaitHeader, "x-tollgate-key", "x-tollgate-insider"}
}

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

// Route is one row of the table.
type Route struct {
	Name   string // in Envoy's statistics and logs
	Path   string // exact, or with Prefix a beginning
	Prefix bool
	// Named, of a prefix: what follows is one name, slashes included, and must be there.
	Named    bool
	Rewrite  string // the path that the engine gets, where it is another one
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
	// Timeout of a page; 0 where an engine answers: a stream may last.
	Timeout time.Duration
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

// Of is the row of a path, whatever the method; without methods where the gateway
// has no such path.
func Of(path string) Route {
	path, _, _ = strings.Cut(path, "?")
	if i, ok := exact[path]; ok {
		return table[i]
	}
	for _, r := range table {
		if !r.Prefix || !strings.HasPrefix(path, r.Path) {
			continue
		}
		if r.Named && len(path) > len(r.Path) || !r.Named && !escapedSlash(path) {
			return r
		}
	}
	return Route{Endpoint: Other, Class: admission.Admin}
}

// escapedSlash: Envoy leaves %2F and %5C as they are, because the name of a model may
// have one. A program that decodes them sees another path, so no other path may have
// one.
func escapedSlash(path string) bool {
	lower := strings.ToLower(path)
	return strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c")
}

// Label is the canonical endpoint of a path for logs and metrics, whatever
// its method; [Other] where the gateway has none.
func Label(path string) string { return Of(path).Endpoint }
