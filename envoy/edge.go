package envoy

import (
	"strings"
	"time"

	"tollgate/internal/route"
)

// Names of the clusters.
const (
	Engines      = "vllm" // all engines, whatever they serve
	authzCluster = "tollgate_authz"
	procCluster  = "tollgate_proc"
	alsCluster   = "tollgate_als"
	pageCluster  = "tollgate_http"
)

// Edge is the edge as values: what envoy.yaml writes down, in this order.
type Edge struct {
	Listeners []Listener
	Chain     []string // filters of each listener, Envoy's own without "envoy.filters.http."; the order is the design
	Routes    []Route  // the first that matches is taken
	Services  []Service
}

// Edge is what the parameters amount to.
func (p Params) Edge() Edge {
	return Edge{
		Listeners: p.listeners(),
		Chain:     p.chain(),
		Routes:    routes(),
		Services:  p.services(),
	}
}

// chain is the order of the filters: what pages may read first, then who may pass,
// then the size, then what it costs. ext_proc before ext_authz would meter strangers.
func (p Params) chain() []string {
	chain := []string{"cors", "ext_authz", "body_size_limit"}
	if p.Meter != nil {
		chain = append(chain, meterFilter)
	}
	return append(chain, "ext_proc", "buffer", "router")
}

// Listener is one address that clients connect to.
type Listener struct {
	Name    string
	Address string // an IP address
	Port    int
	Door    string // what the check is told; empty where there is one listener for all
}

// listeners are the edge, and the administrators' own where there is one.
func (p Params) listeners() []Listener {
	edge := Listener{Name: "edge", Address: p.ListenAddress, Port: p.ListenPort}
	if p.AdminAddress == "" {
		return []Listener{edge}
	}
	edge.Door = route.Public
	return []Listener{edge, {Name: "admin", Address: p.AdminAddress, Port: p.AdminPort, Door: route.Private}}
}

// Route is one row of the table of routes on its way to a cluster.
type Route struct {
	Name    string
	Path    string // exact, or with Prefix a beginning
	Prefix  bool
	Methods []string
	Rewrite string // the path behind it, where it is another one
	Cluster string
	Timeout time.Duration // 0: a stream may last
	// SameOrigin: pages of other origins read nothing here.
	SameOrigin bool
}

// Metered: the body is read and rewritten on its way, and the answer counted.
func (r Route) Metered() bool { return r.Cluster == Engines }

// Method is how Envoy matches the methods: one exactly, several by expression.
func (r Route) Method() string {
	if len(r.Methods) == 1 {
		return "exact: " + r.Methods[0]
	}
	return `safe_regex: { regex: "` + strings.Join(r.Methods, "|") + `" }`
}

// routes is the table of [route.Table] with what is behind each of its rows.
func routes() []Route {
	table := route.Table()
	out := make([]Route, len(table))
	for i, r := range table {
		out[i] = Route{
			Name: r.Name, Path: r.Path, Prefix: r.Prefix, Methods: r.Methods, Rewrite: r.Rewrite,
			Cluster: Engines, Timeout: r.Timeout, SameOrigin: r.SameOrigin,
		}
		if r.Page {
			out[i].Cluster = pageCluster
		}
	}
	return out
}

// Service is one cluster that is tollgate itself.
type Service struct {
	Name   string
	Socket string // relative to state_dir
	GRPC   bool
	Buffer int // bytes that a connection may hold; 0: Envoy's 1 MiB
}

// procBuffer is how much of bodies may be on the way to tollgate, in nobody's
// budget yet. The access log has no such bound: above it entries are thrown away.
const procBuffer = 262144

// services: one socket and three clusters for gRPC, so that chunks of thousands of
// streams do not queue before a Check, and have counters of their own.
func (p Params) services() []Service {
	return []Service{
		{Name: authzCluster, Socket: p.GRPCSocket, GRPC: true},
		{Name: procCluster, Socket: p.GRPCSocket, GRPC: true, Buffer: procBuffer},
		{Name: alsCluster, Socket: p.GRPCSocket, GRPC: true},
		{Name: pageCluster, Socket: p.HTTPSocket},
	}
}
