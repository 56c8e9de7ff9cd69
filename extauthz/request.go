package extauthz

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"google.golang.org/grpc/mem"

	"tollgate/internal/admission"
	"tollgate/internal/route"
	"tollgate/internal/rpc"
	"tollgate/internal/trace"
	"tollgate/internal/wire"
)

// Field numbers of envoy.service.auth.v3.CheckRequest and of what is in it.
const (
	checkAttributes = 1
	attrSource      = 1 // AttributeContext
	attrRequest     = 4
	attrContext     = 10 // a map
	peerAddress     = 1  // Peer
	requestHTTP     = 2  // Request
	httpMethod      = 2  // HttpRequest
	httpJoined      = 3  // a map
	httpPath        = 4
	httpHost        = 5
	httpProtocol    = 10
	httpHeaders     = 13
)

// check is what a decision needs of a CheckRequest: everything is a copy, byte by
// byte as Envoy sent it. It need not be UTF-8, which the generated code would ask
// for: routes, names of hosts and addresses are compared whole.
type check struct {
	method, path, host string
	protocol           string // "HTTP/1.1"
	route              route.Route
	door               string // which listener it came to; "" where there is one
	peer               string // the address that the client connects from
	headers            headers
	// raw: the headers came in header_map, one by one and as bytes
	// (encode_raw_headers). Envoys of control planes that cannot ask for that send a
	// map, with repeated headers joined by commas.
	raw bool
}

// headers are the request headers that a decision needs. Where they came raw a
// repeated header is a repeated value.
type headers struct {
	authorization, apiKey, origin []string
	traceparent                   []string
	requestID, external           string
	// relayed: somebody passed the request on, or a page of another site made it.
	relayed bool
	// scheme: the request line has one. Every HTTP/2 request does; over HTTP/1 it
	// is an absolute URI, which clients send to proxies.
	scheme                              bool
	contentType, contentLength, upgrade string
	anthropicVersion, preflight         string // preflight is access-control-request-method
	userEmail, userID, userName         string // of the person in front of Open WebUI
}

// Decode implements [rpc.Decoder].
func (c *check) Decode(data mem.BufferSlice) error {
	buffer := data.MaterializeToBuffer(rpc.Buffers)
	defer buffer.Free()
	err := wire.Each(buffer.ReadOnlyData(), func(f wire.Field) error {
		if f.Num != checkAttributes {
			return nil
		}
		return wire.Each(f.Bytes, c.attribute)
	})
	if err != nil {
		return fmt.Errorf("decode check: %w", err)
	}
	c.route = route.Of(c.path)
	return nil
}

// attribute reads a field of an AttributeContext.
func (c *check) attribute(f wire.Field) error {
	switch f.Num {
	case attrSource:
		return wire.Each(f.Bytes, func(f wire.Field) error {
			if f.Num != peerAddress {
				return nil
			}
			host, err := wire.SocketAddress(f.Bytes)
			c.peer = string(host)
			return err
		})
	case attrRequest:
		return wire.Each(f.Bytes, func(f wire.Field) error {
			if f.Num != requestHTTP {
				return nil
			}
			return wire.Each(f.Bytes, c.http)
		})
	case attrContext:
		return c.context(f.Bytes)
	}
	return nil
}

// context reads an entry of context_extensions, which a listener of envoy.yaml has.
func (c *check) context(entry []byte) error {
	key, value, err := wire.Entry(entry)
	if string(key) == "door" {
		c.door = string(value)
	}
	return err
}

// http reads a field of an HttpRequest.
func (c *check) http(f wire.Field) error {
	switch f.Num {
	case httpMethod:
		c.method = string(f.Bytes)
	case httpPath:
		c.path = string(f.Bytes)
	case httpHost:
		c.host = string(f.Bytes)
	case httpProtocol:
		c.protocol = string(f.Bytes)
	case httpJoined:
		if c.raw {
			return nil
		}
		name, value, err := wire.Entry(f.Bytes)
		if err == nil {
			c.headers.add(name, value)
		}
		return err
	case httpHeaders:
		if !c.raw {
			c.raw, c.headers = true, headers{} // better than the map
		}
		return wire.Headers(f.Bytes, c.headers.add)
	}
	return nil
}

func (h *headers) add(name, value []byte) {
	if bytes.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		name = bytes.ToLower(name)
	}
	if one := h.only(name); one != nil {
		*one = string(value)
		return
	}
	switch string(name) {
	case "authorization":
		h.authorization = append(h.authorization, string(value))
	case "x-api-key":
		h.apiKey = append(h.apiKey, string(value))
	case trace.Header:
		h.traceparent = append(h.traceparent, string(value))
	case "origin":
		h.origin = append(h.origin, string(value))
	case "sec-fetch-site":
		h.relayed = h.relayed || string(value) == "cross-site"
	case "forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip", "x-tollgate-said-proto":
		h.relayed = true
	case "x-tollgate-said-scheme":
		h.scheme = true
	case "x-forwarded-proto": // Envoy's own; the client's is x-tollgate-said-proto
	default:
		h.relayed = h.relayed || bytes.HasPrefix(name, []byte("x-forwarded-"))
	}
}

// only is where a header goes of which one value counts, the last; nil for others.
func (h *headers) only(name []byte) *string {
	switch string(name) {
	case "x-request-id":
		return &h.requestID
	case "x-envoy-external-address":
		return &h.external
	case "content-type":
		return &h.contentType
	case "content-length":
		return &h.contentLength
	case "upgrade":
		return &h.upgrade
	case "anthropic-version":
		return &h.anthropicVersion
	case "access-control-request-method":
		return &h.preflight
	case "x-openwebui-user-email":
		return &h.userEmail
	case "x-openwebui-user-id":
		return &h.userID
	case "x-openwebui-user-name":
		return &h.userName
	}
	return nil
}

// arrival reads a check.
func (s *Server) arrival(c *check) admission.Arrival {
	h := &c.headers
	a := admission.Arrival{
		Method: c.method, RequestID: h.requestID,
		Authorization: h.authorization, APIKey: h.apiKey, EndUser: h.endUser(),
		Class: c.route.Class, Endpoint: c.route.Endpoint, Refused: s.refused(c),
	}
	if s.preflight(c) {
		a.Class, a.Refused = admission.Open, nil
	}
	peer := c.peerAddr()
	a.Addr = peer
	if s.o.TrustedProxies > 0 {
		// Envoy has computed it from x-forwarded-for by xff_num_trusted_hops; it
		// removes a client's own copy.
		if addr, err := netip.ParseAddr(h.external); err == nil {
			a.Addr = addr
		}
	}
	a.Local = !s.o.Remote && s.o.TrustedProxies == 0 && peer.IsLoopback() && c.direct() && loopbackHost(c.host) && ownPort(c.host, s.port(c)) && loopbackOrigin(h.origin)
	return a
}

// direct: nothing in the request says that it came by way of somebody else.
// HTTP/1.0 is what a proxy speaks that says nothing of whom it speaks for.
func (c *check) direct() bool {
	absolute := c.headers.scheme && strings.HasPrefix(c.protocol, "HTTP/1")
	return c.protocol != "HTTP/1.0" && !c.headers.relayed && !absolute
}

// port is the one of the listener that the request came to.
func (s *Server) port(c *check) string {
	if c.door == route.Private {
		return s.o.AdminPort
	}
	return s.o.Port
}

// ownPort: the port in Host, where there is one, is the gateway's own. Another is
// that of a forwarder on this machine.
func ownPort(host, port string) bool {
	_, named, err := net.SplitHostPort(host)
	return err != nil || named == port || port == ""
}

func (c *check) peerAddr() netip.Addr {
	addr, err := netip.ParseAddr(c.peer)
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
