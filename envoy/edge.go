package envoy

import (
	"net"
	"strconv"
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
	xdsCluster   = "tollgate_xds"
	pageCluster  = "tollgate_http"
)

// A request says in dynamic metadata which engines it may go to: ext_proc writes it,
// and the cluster of engines reads it. The names are those of the Gateway API
// Inference Extension, so that other endpoint pickers can write them too.
const (
	PlacementNamespace = "envoy.lb"
	// PlacementKey is a list of addresses, IP:PORT with commas between, best first.
	// Later ones are tried when a connection to those before cannot be made.
	PlacementKey = "x-gateway-destination-endpoint"
	// ModelKey is the model that the engine must serve where none of the list is known.
	ModelKey = "model"
	// PlacementTries bounds how many engines a request may try.
	PlacementTries = 5
)

// Endpoint is one engine.
type Endpoint struct {
	Host     string // an IP address; in a bootstrap with engines also a name
	Port     int
	Name     string   // what the engine is asked for as its host; empty: host and port
	Weight   int      // share of the load, relative; 0 is 1
	Models   []string // what it serves
	Draining bool     // Envoy chooses it no more by itself
}

// Authority is the engine's name as a client of its own would send it.
func (e Endpoint) Authority() string {
	if e.Name != "" {
		return e.Name
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
}

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

// Metered reports that the body is read and rewritten on its way, and the answer counted.
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
	Places []place
	GRPC   bool
	Buffer int // bytes that a connection may hold; 0: Envoy's 1 MiB
}

// procBuffer bounds the bytes of bodies on their way to tollgate, which no budget
// counts yet. The access log has no such bound: above it entries are thrown away.
const procBuffer = 262144

// services: one socket and four clusters for gRPC, so that chunks of thousands of
// streams do not queue before a Check, and have counters of their own.
func (p Params) services() []Service {
	streams, pages := p.Remote.places(p.GRPCSocket), p.Remote.places(p.HTTPSocket)
	return []Service{
		{Name: authzCluster, Places: streams, GRPC: true},
		{Name: procCluster, Places: streams, GRPC: true, Buffer: procBuffer},
		{Name: alsCluster, Places: streams, GRPC: true},
		{Name: xdsCluster, Places: streams, GRPC: true},
		{Name: pageCluster, Places: pages},
	}
}
