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
	fields := [2]field{{servedModel, model}, {destination, strings.Join(endpoints, ",")}}
	n := min(1+len(endpoints), 2)
	if out.prepared != nil { // shared: it must not be changed
		return &outbound{prepared: append(appendMetadata(nil, balancer, fields[:n]...), out.prepared...)}
	}
	out.meta = appendMetadata(out.meta, balancer, fields[:n]...)
	return out
}
