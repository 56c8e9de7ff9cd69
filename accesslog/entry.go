package accesslog

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"tollgate/internal/admission"
	"tollgate/internal/envoycode"
	"tollgate/internal/route"
	"tollgate/internal/trace"
)

// witness is what one entry says.
func (e *entry) witness() admission.Witness {
	code := int(e.status)
	w := admission.Witness{
		LeaseID: e.ticket.LeaseID, KeyID: e.ticket.KeyID, RequestID: e.requestID,
		Method: method(corev3.RequestMethod(e.method)), Endpoint: route.Label(e.path),
		Status: code, Cause: envoycode.Cause(e.details, e.clientGone(), code), Details: e.details,
		Denied:     envoycode.Reason(e.details),
		ClientAddr: address(e.client),
		Started:    e.started.time(),
		FirstByte:  e.firstByte.duration(),
		Duration:   e.last.duration(),
		BytesIn:    e.bytesIn, BytesOut: e.bytesOut,
		Trace: trace.Read(e.ticket.Trace),
	}
	if e.duration.is {
		w.Duration = e.duration.duration()
	}
	if e.ticket.Reason != "" {
		w.Denied = admission.Reason(e.ticket.Reason)
	}
	return w
}

// clientGone: a client that leaves with RST_STREAM(NO_ERROR) sets no flag and no
// detail (seen on 1.40); that the last byte was never sent gives it away.
func (e *entry) clientGone() bool {
	return e.clientEnded || e.clientReset || e.details == envoycode.ViaUpstream && !e.last.is
}

// final reports whether this is the entry of the end. Envoy sends only those with our
// configuration; with another configuration it may send more.
func (e *entry) final() bool {
	t := datav3.AccessLogType(e.kind)
	return t == datav3.AccessLogType_NotSet || t == datav3.AccessLogType_DownstreamEnd
}

// method is the label of a method: a closed set, whatever clients send.
func method(m corev3.RequestMethod) string {
	switch m {
	case corev3.RequestMethod_GET, corev3.RequestMethod_HEAD, corev3.RequestMethod_POST, corev3.RequestMethod_PUT,
		corev3.RequestMethod_PATCH, corev3.RequestMethod_DELETE, corev3.RequestMethod_OPTIONS:
		return m.String()
	case corev3.RequestMethod_METHOD_UNSPECIFIED, corev3.RequestMethod_CONNECT, corev3.RequestMethod_TRACE:
	}
	return "OTHER"
}

func address(s string) string {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Unmap().String()
	}
	return s
}
