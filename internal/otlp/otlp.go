// Package otlp sends the spans of finished requests to an OpenTelemetry collector. It
// never holds a request up: spans wait in a bounded queue, and a collector that is away
// or slow costs spans and nothing else.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"tollgate/internal/trace"
)

const (
	// queued bounds the spans that wait or are on their way; a span takes about 2 KiB.
	queued = 4096
	// batch is how many spans go at once, batchWait how long the first of them waits.
	batch     = 512
	batchWait = 2 * time.Second
	// sendTimeout bounds one batch with all its attempts.
	sendTimeout = 10 * time.Second
	// closeTimeout bounds what a stop waits for the collector.
	closeTimeout = 2 * time.Second
	// repeat is the least time between two log lines about spans that are lost.
	repeat = time.Minute
)

// Options are what a [Sender] is made of. All but HeadersFile must be set.
type Options struct {
	Target *url.URL // http, or https for TLS
	HTTP   bool     // OTLP over HTTP with the path of Target; else over gRPC
	// HeadersFile is read again for each batch; see [secretfile.Headers].
	HeadersFile string
	Version     string                // of this program
	Reg         prometheus.Registerer // adds tollgate_
	Log         hclog.Logger
}

// Span is one finished request.
type Span struct {
	trace.Span
	Name       string
	Begin, End time.Time
	Failed     string // what went wrong, of a closed set; "" when nothing did
	Attributes []attribute.KeyValue
}

// Sender sends spans. Its methods are safe for concurrent use.
type Sender struct {
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
	waiting  atomic.Int64 // spans in the queue and on their way
	spans    *prometheus.CounterVec
	log      hclog.Logger

	mu   sync.Mutex
	said time.Time // when the log was told of a loss; zero while the collector answers. Guarded by mu
}

// The outcomes of a span.
const (
	sent    = "sent"
	dropped = "dropped" // the queue is full
	failed  = "failed"  // the collector did not take it
)

// New returns a sender; it connects when there is something to send. The caller must
// close it.
func New(o Options) (*Sender, error) {
	exporter, err := exporterFor(&o)
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	// What the environment says of this process (OTEL_RESOURCE_ATTRIBUTES,
	// OTEL_SERVICE_NAME) goes before.
	host, _ := os.Hostname() // "" is no name
	about, err := resource.New(context.Background(),
		resource.WithAttributes(attribute.String("service.name", "tollgate"), attribute.String("service.version", o.Version), attribute.String("host.name", host)),
		resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	s := &Sender{log: o.Log, spans: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "spans_total", Help: "Spans of traced requests, by what became of them.",
	}, []string{"outcome"})}
	o.Reg.MustRegister(s.spans)
	for _, outcome := range []string{sent, dropped, failed} {
		s.spans.WithLabelValues(outcome)
	}
	s.provider = sdktrace.NewTracerProvider(
		sdktrace.WithResource(about), sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithIDGenerator(given{}),
		sdktrace.WithBatcher(&counted{exporter, s}, sdktrace.WithMaxQueueSize(queued), sdktrace.WithMaxExportBatchSize(batch),
			sdktrace.WithBatchTimeout(batchWait), sdktrace.WithExportTimeout(sendTimeout)),
	)
	s.tracer = s.provider.Tracer("tollgate", oteltrace.WithInstrumentationVersion(o.Version))
	return s, nil
}

// Send queues a span. It drops the span when too many wait.
func (s *Sender) Send(span Span) {
	if s.waiting.Add(1) > queued {
		s.waiting.Add(-1)
		s.spans.WithLabelValues(dropped).Inc()
		s.lost("the trace collector does not take spans as fast as requests end; spans are dropped")
		return
	}
	ctx := context.WithValue(context.Background(), idKey{}, span.Span)
	if span.Parent != [8]byte{} {
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
			TraceID: span.Trace, SpanID: span.Parent, TraceFlags: oteltrace.FlagsSampled, Remote: true,
		}))
	}
	_, made := s.tracer.Start(ctx, span.Name, oteltrace.WithTimestamp(span.Begin), oteltrace.WithSpanKind(oteltrace.SpanKindClient),
		oteltrace.WithAttributes(span.Attributes...))
	if span.Failed != "" {
		made.SetStatus(codes.Error, span.Failed)
	}
	made.End(oteltrace.WithTimestamp(span.End))
}

// Close sends what waits, for two seconds at most. Nothing may be sent after it.
func (s *Sender) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := s.provider.Shutdown(ctx); err != nil {
		s.log.Warn("the last spans were not sent", "spans", s.waiting.Load(), "error", err)
	}
}

// lost writes a line about lost spans, once a minute at most.
func (s *Sender) lost(what string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.said) >= repeat {
		s.said = now
		s.log.Warn(what, args...)
	}
}

// taken notes that the collector answers.
func (s *Sender) taken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.said.IsZero() {
		s.said = time.Time{}
		s.log.Info("the trace collector takes spans again")
	}
}

// counted counts what becomes of each batch. Nobody else hears of an error: the
// library would write it to the standard error.
type counted struct {
	sdktrace.SpanExporter
	to *Sender
}

// ExportSpans implements [sdktrace.SpanExporter].
func (c *counted) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	n := len(spans)
	defer c.to.waiting.Add(int64(-n))
	if err := c.SpanExporter.ExportSpans(ctx, spans); err != nil {
		c.to.spans.WithLabelValues(failed).Add(float64(n))
		c.to.lost("the trace collector does not take spans; requests go on, these spans are lost", "spans", n, "error", err)
		return nil
	}
	c.to.spans.WithLabelValues(sent).Add(float64(n))
	c.to.taken()
	return nil
}

// given gives each span the identity that its request has had since its check.
type given struct{}

type idKey struct{}

// NewIDs implements [sdktrace.IDGenerator].
func (given) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	s, _ := ctx.Value(idKey{}).(trace.Span)
	return s.Trace, s.ID
}

// NewSpanID implements [sdktrace.IDGenerator].
func (given) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	s, _ := ctx.Value(idKey{}).(trace.Span)
	return s.ID
}
