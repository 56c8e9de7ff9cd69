package gateway

import (
	"context"
	"fmt"

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
// of its access record; the end reason of the ledger says more where an answer had begun.
func (s *spans) record(a *admission.Access, failed string) {
	if s == nil || a.Trace.None() {
		return
	}
	switch a.Reason {
	case "", ledger.Refused: // nothing was recorded, or the engine itself refused
	case ledger.Complete:
		failed = ""
	default:
		failed = string(a.Reason)
	}
	end := a.Ended
	if end.IsZero() {
		end = a.Started.Add(a.Duration)
	}
	s.sender.Send(otlp.Span{Span: a.Trace, Name: genai.Name(a), Begin: a.Started, End: end, Failed: failed, Attributes: s.names.Attributes(a, failed)})
}

// close sends what waits, for a moment.
func (s *spans) close() {
	if s != nil {
		s.sender.Close(context.Background())
	}
}
