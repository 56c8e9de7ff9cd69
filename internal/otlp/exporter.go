package otlp

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"tollgate/internal/secretfile"
)

// Between two attempts at the same batch, and at a connection: a collector that was away
// for hours gets spans again a moment after it is back.
const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 4 * time.Second
)

// exporterFor makes what speaks OTLP.
func exporterFor(o *Options) (*otlptrace.Exporter, error) {
	if o.HTTP {
		return otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(o.Target.String()), otlptracehttp.WithTimeout(sendTimeout),
			otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
			otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost, MaxElapsedTime: sendTimeout}),
			otlptracehttp.WithHTTPClient(&http.Client{Transport: headed{http.DefaultTransport, o.HeadersFile}, CheckRedirect: noRedirect}))
	}
	options := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpointURL(o.Target.String()), otlptracegrpc.WithTimeout(sendTimeout), otlptracegrpc.WithCompressor("gzip"),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost, MaxElapsedTime: sendTimeout}),
		otlptracegrpc.WithDialOption(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryFirst, Multiplier: 2, Jitter: 0.2, MaxDelay: retryMost},
			MinConnectTimeout: sendTimeout / 2,
		})),
	}
	if o.HeadersFile != "" {
		options = append(options, otlptracegrpc.WithDialOption(grpc.WithPerRPCCredentials(headers(o.HeadersFile))))
	}
	return otlptracegrpc.New(context.Background(), options...)
}

// noRedirect keeps the headers, which are secrets, from another host.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// headed sets the headers of a file on every request.
type headed struct {
	http.RoundTripper
	file string
}

// RoundTrip implements [http.RoundTripper].
func (h headed) RoundTrip(r *http.Request) (*http.Response, error) {
	set, err := secretfile.Headers(h.file)
	if err != nil {
		return nil, fmt.Errorf("otel.headers_file: %w", err)
	}
	r = r.Clone(r.Context())
	for name, value := range set {
		r.Header.Set(name, value)
	}
	return h.RoundTripper.RoundTrip(r)
}

// headers is the file whose headers go with every call.
type headers string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (h headers) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	set, err := secretfile.Headers(string(h))
	if err != nil {
		return nil, fmt.Errorf("otel.headers_file: %w", err)
	}
	return set, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: a collector on this
// machine is spoken to in plain text.
func (headers) RequireTransportSecurity() bool { return false }
