package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

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
	rows    ledger.Store // where a log entry is asked for that no session knows
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
	if s == nil || a.Trace.None() || a.Alone && s.told(a.LeaseID) {
		return
	}
	failed = failure(a, failed)
	end := a.Ended
	if end.IsZero() {
		end = a.Started.Add(a.Duration)
	}
	s.sender.Send(otlp.Span{Span: a.Trace, Name: genai.Name(a), Begin: a.Started, End: end, Failed: failed, Attributes: s.names.Attributes(a, failed)})
}

// told reports whether a lease has a row: its span is sent when that is ended.
func (s *spans) told(leaseID string) bool {
	if leaseID == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), rowTimeout)
	defer cancel()
	_, err := s.rows.Get(ctx, leaseID)
	return !errors.Is(err, ledger.ErrUnknown)
}

// rowTimeout bounds how long the ledger is asked for one row.
const rowTimeout = time.Second

// ended sends the spans of rows that were ended at that moment without their sessions,
// which a crash has taken.
func (s *spans) ended(ctx context.Context, rows ledger.Store, leases []string, at time.Time) {
	if s == nil {
		return
	}
	for _, lease := range leases {
		rec, err := rows.Get(ctx, lease)
		if err != nil || rec.Trace == "" || !rec.EndedAt.Equal(ledger.Micro(at)) {
			continue // it is not traced, or was settled before
		}
		a := admission.Access{
			Witness: admission.Witness{
				LeaseID: rec.LeaseID, RequestID: rec.RequestID, KeyID: rec.KeyID, Method: http.MethodPost, Endpoint: rec.Endpoint, Status: rec.Status,
				Started: rec.StartedAt, Trace: trace.Read(rec.Trace),
			},
			User: rec.User, Model: rec.Model, RequestedModel: rec.RequestedModel, Reason: rec.Reason, Quality: rec.Quality, Counts: rec.Counts,
			Stream: rec.Stream, Engine: rec.Engine, Ended: rec.EndedAt,
		}
		s.record(&a, "") //nolint:contextcheck // the span goes out also when ctx has ended
	}
}

// failure is what OpenTelemetry shall hear of how a request went, "" when it went well:
// the end reason of the ledger where an answer had begun, else the error type of its
// access record.
func failure(a *admission.Access, failed string) string {
	if a.Reason == "" || a.Reason == ledger.Refused { // nothing was recorded, or the engine itself refused
		return failed
	}
	if a.Reason == ledger.Complete {
		return ""
	}
	return string(a.Reason)
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
