package accesslog

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"tollgate/internal/admission"
	"tollgate/internal/envoycode"
	"tollgate/internal/route"
	"tollgate/internal/ticket"
)

// witness reads one entry.
func witness(e *datav3.HTTPAccessLogEntry) admission.Witness {
	common, req, resp := e.GetCommonProperties(), e.GetRequest(), e.GetResponse()
	flags := common.GetResponseFlags()
	code := int(resp.GetResponseCode().GetValue())
	details := resp.GetResponseCodeDetails()
	t := ticket.Read(common.GetMetadata())
	gone := flags.GetDownstreamConnectionTermination() || flags.GetDownstreamRemoteReset() || resetKindly(common, details)
	w := admission.Witness{
		LeaseID: t.LeaseID, KeyID: t.KeyID, RequestID: req.GetRequestId(),
		Method: method(req.GetRequestMethod()), Endpoint: route.Label(req.GetPath()),
		Status: code, Cause: envoycode.Cause(details, gone, code), Details: details,
		Denied:     envoycode.Reason(details),
		ClientAddr: address(common.GetDownstreamRemoteAddress()),
		Started:    common.GetStartTime().AsTime(),
		FirstByte:  common.GetTimeToFirstDownstreamTxByte().AsDuration(),
		Duration:   duration(common),
		BytesIn:    req.GetRequestBodyBytes(), BytesOut: resp.GetResponseBodyBytes(),
	}
	if t.Reason != "" {
		w.Denied = admission.Reason(t.Reason)
	}
	return w
}

// resetKindly: a client that leaves with RST_STREAM(NO_ERROR) sets no flag and
// no detail (seen on 1.40); that the last byte was never sent gives it away.
func resetKindly(c *datav3.AccessLogCommon, details string) bool {
	return details == envoycode.ViaUpstream && c.GetTimeToLastDownstreamTxByte() == nil
}

func duration(c *datav3.AccessLogCommon) time.Duration {
	if d := c.GetDuration(); d != nil {
		return d.AsDuration()
	}
	return c.GetTimeToLastDownstreamTxByte().AsDuration()
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

func address(a *corev3.Address) string {
	s := a.GetSocketAddress().GetAddress()
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Unmap().String()
	}
	return s
}
