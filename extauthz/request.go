package extauthz

import (
	"net/netip"
	"net/url"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"tollgate/internal/admission"
	"tollgate/internal/route"
)

// headers are the request headers that a decision needs, as raw bytes
// (encode_raw_headers): a repeated header is a repeated value.
type headers struct {
	authorization, apiKey, forwarded, origin []string
	requestID, external                      string
}

func readHeaders(h *authv3.AttributeContext_HttpRequest) headers {
	var out headers
	for _, v := range h.GetHeaderMap().GetHeaders() {
		value := headerValue(v)
		switch strings.ToLower(v.GetKey()) {
		case "authorization":
			out.authorization = append(out.authorization, value)
		case "x-api-key":
			out.apiKey = append(out.apiKey, value)
		case "x-forwarded-for":
			out.forwarded = append(out.forwarded, value)
		case "origin":
			out.origin = append(out.origin, value)
		case "x-request-id":
			out.requestID = value
		case "x-envoy-external-address":
			out.external = value
		}
	}
	return out
}

func headerValue(v *corev3.HeaderValue) string {
	if raw := v.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return v.GetValue()
}

// arrival reads a check; false when the route is none of the gateway's.
func arrival(req *authv3.CheckRequest, hops int) (admission.Arrival, bool) {
	http := req.GetAttributes().GetRequest().GetHttp()
	h := readHeaders(http)
	a := admission.Arrival{
		Method: http.GetMethod(), RequestID: h.requestID,
		Authorization: h.authorization, APIKey: h.apiKey,
	}
	r, ok := route.Find(http.GetMethod(), http.GetPath())
	if !ok {
		return a, false
	}
	a.Class, a.Endpoint = r.Class, r.Endpoint
	peer := peerAddr(req)
	a.Addr = peer
	if hops > 0 {
		// Envoy has computed it from x-forwarded-for by xff_num_trusted_hops; it
		// removes a client's own copy.
		if addr, err := netip.ParseAddr(h.external); err == nil {
			a.Addr = addr
		}
	}
	a.Local = hops == 0 && len(h.forwarded) == 0 && peer.IsLoopback() &&
		loopbackHost(http.GetHost()) && loopbackOrigin(h.origin)
	return a, true
}

func peerAddr(req *authv3.CheckRequest) netip.Addr {
	addr, err := netip.ParseAddr(req.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress())
	if err != nil {
		return netip.Addr{} // one bucket for all that have none (a Unix socket in front)
	}
	return addr.Unmap()
}

// loopbackHost: the client typed a name of this machine. A page of somebody
// else's cannot do that without its own name in Host (DNS rebinding).
func loopbackHost(host string) bool {
	name := host
	if strings.HasPrefix(name, "[") {
		name, _, _ = strings.Cut(name[1:], "]")
	} else if i := strings.LastIndexByte(name, ':'); i >= 0 {
		name = name[:i]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}

func loopbackOrigin(origins []string) bool {
	for _, o := range origins {
		u, err := url.Parse(o)
		if err != nil || !loopbackHost(u.Host) {
			return false
		}
	}
	return true
}
