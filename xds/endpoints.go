package xds

import (
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/envoy"
)

// mostNames bounds the models of one engine that Envoy's own choice knows. Requests
// whose engine tollgate has chosen, which are all but those that found none of their
// list, need no name there.
const mostNames = 1000

// Assignment is the engines as Envoy's cluster of them has them. Each must have an IP
// address as host.
func Assignment(engines []envoy.Endpoint) (*endpointv3.ClusterLoadAssignment, error) {
	group := &endpointv3.LocalityLbEndpoints{}
	for _, e := range engines {
		ip, err := netip.ParseAddr(e.Host)
		if err != nil || e.Port < 1 || e.Port > 65535 {
			return nil, fmt.Errorf("engine %s: its endpoint %s is no IP address and port", e.Name, e.Authority())
		}
		group.LbEndpoints = append(group.LbEndpoints, endpoint(e, ip))
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: envoy.Engines, Endpoints: []*endpointv3.LocalityLbEndpoints{group}}, nil
}

func endpoint(e envoy.Endpoint, ip netip.Addr) *endpointv3.LbEndpoint {
	health := corev3.HealthStatus_UNKNOWN // the health check says it
	if e.Draining {
		health = corev3.HealthStatus_DRAINING
	}
	models := &structpb.ListValue{}
	for _, m := range e.Models[:min(len(e.Models), mostNames)] {
		models.Values = append(models.Values, structpb.NewStringValue(m))
	}
	return &endpointv3.LbEndpoint{
		HealthStatus:        health,
		LoadBalancingWeight: wrapperspb.UInt32(uint32(max(1, e.Weight))), //nolint:gosec // at most config.MaxWeight
		Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			envoy.PlacementNamespace: {Fields: map[string]*structpb.Value{envoy.ModelKey: structpb.NewListValue(models)}},
		}},
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Hostname: e.Authority(),
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: ip.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(e.Port)}, //nolint:gosec // checked above
			}}},
		}},
	}
}
