package config

import (
	"errors"
	"net"
	"net/url"
	"strings"

	"tollgate/internal/secretfile"
)

// tracesPath is where a collector takes spans over HTTP.
const tracesPath = "/v1/traces"

// schemes are what an endpoint may begin with, and whether TLS is spoken then.
var schemes = map[string]string{"http": "http", "https": "https", "grpc": "http", "grpcs": "https"}

var errEndpoint = errors.New("not HOST:PORT or a URL")

// Target is the address of the collector: its scheme is http, or https for TLS, its path
// is that of the spans where the protocol is HTTP. REQUIRES: Endpoint is not empty.
func (o *OTel) Target() (*url.URL, error) {
	text := o.Endpoint
	if !strings.Contains(text, "://") {
		text = "http://" + text
		if _, _, err := net.SplitHostPort(o.Endpoint); err != nil {
			return nil, errEndpoint
		}
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errEndpoint // its own text repeats the value
	}
	scheme, known := schemes[u.Scheme]
	u.Scheme = scheme
	switch bare := u.Path == "" || u.Path == "/"; {
	case !known, !hostname(u.Hostname()), u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errEndpoint
	case o.Protocol == OTLPOverHTTP && bare:
		u.Path = tracesPath
	case o.Protocol != OTLPOverHTTP && !bare:
		return nil, errEndpoint
	case bare:
		u.Path = ""
	}
	if o.Protocol != OTLPOverHTTP && u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "4317") // the port of OTLP over gRPC
	}
	return u, nil
}

func (d *decoder) traces(o *OTel) {
	d.oneOf("otel.protocol", o.Protocol, OTLPOverGRPC, OTLPOverHTTP)
	if o.Endpoint != "" {
		if _, err := o.Target(); err != nil {
			d.bad("otel.endpoint", "is not the address of a collector",
				"write HOST:PORT for plain text, or a URL without user and query, as 127.0.0.1:4317 or https://otel.example.org; a path only with protocol: http")
		}
	}
	if !(o.Sample >= 0 && o.Sample <= 1) {
		d.bad("otel.sample", "must be between 0 and 1", "write for example 0.1 to trace a tenth")
	}
	d.file("otel.headers_file", o.HeadersFile)
	var form *secretfile.LineError
	if _, err := secretfile.Headers(o.HeadersFile); errors.As(err, &form) {
		d.bad("otel.headers_file", "names a file with a line that is no header: "+form.Error(), `write one header a line, as "authorization: Bearer …"`)
	}
}
