package extproc

import "strings"

const (
	// balancer is the namespace that Envoy's load balancers read.
	balancer = "envoy.lb"
	// destination names the engines to try, ip:port, the best first: the key that
	// Gateway API's inference extension has for it.
	destination = "x-gateway-destination-endpoint"
	// servedModel is what engines without a name in the list are chosen by.
	servedModel = "model"
)

// direct adds to the answer for a checked body where the request goes.
func (x *exchange) direct(out *outbound) *outbound {
	model, endpoints := x.session.Endpoints()
	if model == "" {
		return out
	}
	// Without endpoints the proxy chooses among the engines of the model.
	fields := []field{{servedModel, model}}
	if len(endpoints) > 0 {
		fields = append(fields, field{destination, strings.Join(endpoints, ",")})
	}
	meta := appendMetadata(nil, balancer, fields...)
	if out.prepared != nil { // shared: it must not be changed
		return &outbound{prepared: append(meta, out.prepared...)}
	}
	out.meta = append(out.meta, meta...)
	return out
}
