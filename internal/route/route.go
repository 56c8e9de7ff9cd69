// Package route is the table of design §4 as code: which method and path is
// which canonical endpoint, and what it consumes. Envoy's routes are the same
// table as configuration (envoy/envoy.yaml); a test of that package compares
// the two.
package route

import (
	"strings"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
)

// Canonical names of the routes that are no inference endpoint.
const (
	Health  = "/health"
	Metrics = "/metrics"
	Models  = "/v1/models"
	Admin   = "/admin"
	// Other stands for every path that the gateway does not have, so that label
	// sets stay closed.
	Other = "other"
)

// InsiderHeader tells the page of /health, with the value "yes", that the client
// may see all of it. Only the answer to a check sets it: what a client sends under
// that name is overwritten there.
const InsiderHeader = "x-tollgate-insider"

// Route is one row.
type Route struct {
	Endpoint string // canonical path
	Class    admission.Class
}

// Find returns the route of a method and a path (a query is ignored); false
// where the gateway has none.
func Find(method, path string) (Route, bool) {
	path, _, _ = strings.Cut(path, "?")
	if ep, ok := openai.Canonical(path); ok {
		class := admission.Inference
		if ep.Free() {
			class = admission.Counting
		}
		return Route{string(ep), class}, method == "POST"
	}
	read := method == "GET" || method == "HEAD"
	switch {
	case path == Health:
		return Route{Health, admission.Open}, read
	case path == Metrics:
		return Route{Metrics, admission.Admin}, method == "GET"
	case path == Models, path == "/models":
		return Route{Models, admission.Listing}, method == "GET"
	case strings.HasPrefix(path, Admin+"/"):
		return Route{Admin, admission.Admin}, true
	}
	return Route{Other, admission.Admin}, false
}

// Label is the canonical endpoint of a path for logs and metrics, whatever
// its method; [Other] where the gateway has none.
func Label(path string) string {
	r, _ := Find("", path)
	return r.Endpoint
}
