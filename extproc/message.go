package extproc

import (
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
)

// filter is the key of this filter's attributes: its name in envoy.yaml.
const filter = "envoy.filters.http.ext_proc"

// requestHead is what matters of a request's headers.
type requestHead struct {
	method, path, requestID string
	contentLength           int64 // bytes; 0 = not said
}

func readRequest(m *extprocv3.HttpHeaders) requestHead {
	var h requestHead
	for _, v := range m.GetHeaders().GetHeaders() {
		switch v.GetKey() {
		case ":method":
			h.method = value(v)
		case ":path":
			h.path = value(v)
		case "x-request-id":
			h.requestID = value(v)
		case "content-length":
			h.contentLength = contentLength(value(v))
		}
	}
	return h
}

// responseHead is what matters of an answer's headers.
type responseHead struct {
	status      int
	eventStream bool
	encoded     bool // a content coding other than identity
	retryAfter  bool
}

func readResponse(m *extprocv3.HttpHeaders) responseHead {
	var h responseHead
	for _, v := range m.GetHeaders().GetHeaders() {
		switch v.GetKey() {
		case ":status": // with the colon: "status" is a header of nobody's
			h.status, _ = strconv.Atoi(value(v))
		case "content-type":
			kind, _, _ := strings.Cut(value(v), ";")
			h.eventStream = strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
		case "content-encoding":
			h.encoded = !strings.EqualFold(value(v), "identity")
		case "retry-after":
			h.retryAfter = true
		}
	}
	return h
}

func value(v *corev3.HeaderValue) string {
	if raw := v.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return v.GetValue()
}

// attributes reads the response attributes that envoy.yaml asks for: who wrote
// the answer, and the address of the engine.
func attributes(req *extprocv3.ProcessingRequest) (details, engine string) {
	f := req.GetAttributes()[filter].GetFields()
	return f["response.code_details"].GetStringValue(), f["upstream.address"].GetStringValue()
}
