package gateway

import (
	"context"
	"fmt"
	"runtime"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/config"
	"tollgate/internal/genai"
	"tollgate/internal/ledger"
	"tollgate/internal/otlp"
	"tollgate/internal/trace"
	"tollgate/internal/version"
)

// spans turns access records into spans for the collector.
type spans struct {
	names   genai.Version
	sampler trace.Sampler
	sender  *otlp.Sender
}

// newSpans returns nil where nothing is traced.
func newSpans(c *config.OTel, own prometheus.Registerer, log hclog.Logger) (*spans, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	target, err := c.Target()
	if err != nil {
		return nil, fmt.Errorf("otel.endpoint: %w", err)
	}
	sender, err := otlp.New(otlp.Options{
		Target: target, HTTP: c.Protocol == config.OTLPOverHTTP, HeadersFile: c.HeadersFile, Version: version.String(), Reg: own, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return &spans{names: genai.FromEnvironment(), sampler: trace.NewSampler(c.Sample), sender: sender}, nil
}

// choose is what decides which requests are traced; nil where none is.
func (s *spans) choose() *trace.Sampler {
	if s == nil {
		return nil
	}
	return &s.sampler
}

// record sends the span of a finished request, where it has one. failed is the error type
// of its access record.
func (s *spans) record(a *admission.Access, failed string) {
	if s == nil || a.Trace.None() {
		return
	}
	failed = failure(a, failed)
	end := a.Ended
	if end.IsZero() {
		end = a.Started.Add(a.Duration)
	}
	s.sender.Send(otlp.Span{Span: a.Trace, Name: genai.Name(a), Begin: a.Started, End: end, Failed: failed, Attributes: s.names.Attributes(a, failed)})
}

// failure is what OpenTelemetry shall hear of how a request went, "" when it went well:
// the end reason of the ledger where an answer had begun, else the error type of its
// access record.
func failure(a *admission.Access, failed string) string {
	switch a.Reason {
	case "", ledger.Refused: // nothing was recorded, or the engine itself refused
		return failed
	case ledger.Complete:
		return ""
	default:
		return string(a.Reason)
	}
}

// buildInfo says on own which program this is.
func buildInfo(own prometheus.Registerer) {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "build_info", Help: "1, with the release, the commit and the Go that this program was built of.",
	}, []string{"version", "commit", "go_version"})
	own.MustRegister(info)
	info.WithLabelValues(version.Release, version.Commit(), runtime.Version()).Set(1)
}

// close sends what waits, for a moment.
func (s *spans) close() {
	if s != nil {
		s.sender.Close(context.Background())
	}
}
