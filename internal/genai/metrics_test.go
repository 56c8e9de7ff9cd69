package genai_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/genai"
	"tollgate/internal/trace"
)

func TestTheMetricsOfTheConventions(t *testing.T) {
	if m := genai.FromEnvironment().NewMetrics(prometheus.NewRegistry()); m != nil {
		t.Error("metrics without the switch")
	}
	t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
	reg := prometheus.NewRegistry()
	m := genai.FromEnvironment().NewMetrics(reg)
	a := finished()
	a.ModelLabel, a.RequestedLabel = "tiny", "other" // as metrics have them
	a.Started, a.Ended = time.Unix(100, 0), time.Unix(102, 0)
	a.Trace, _ = trace.NewSampler(1).Begin(nil)
	m.Count(a, "client_abort")
	a.Reason = "" // it was never sent to an engine
	m.Count(a, "requests")

	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]float64{}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			var name strings.Builder
			name.WriteString(f.GetName())
			for _, l := range one.GetLabel() {
				switch l.GetName() {
				case "gen_ai_token_type":
					name.WriteString(" " + l.GetValue())
				case "gen_ai_request_model", "gen_ai_response_model", "gen_ai_provider_name", "gen_ai_operation_name", "error_type":
					want := map[string]string{"gen_ai_request_model": "other", "gen_ai_response_model": "tiny", "gen_ai_provider_name": "vllm", "gen_ai_operation_name": "chat", "error_type": "client_abort"}
					if l.GetValue() != want[l.GetName()] {
						t.Errorf("%s: %s is %q", name.String(), l.GetName(), l.GetValue())
					}
				default:
					t.Errorf("%s has the label %s", name.String(), l.GetName())
				}
			}
			if one.GetHistogram().GetSampleCount() != 1 {
				t.Errorf("%s: %d values", name.String(), one.GetHistogram().GetSampleCount())
			}
			sums[name.String()] = one.GetHistogram().GetSampleSum()
			exemplar := ""
			for _, b := range one.GetHistogram().GetBucket() {
				for _, l := range b.GetExemplar().GetLabel() {
					exemplar = l.GetValue()
				}
			}
			if exemplar != a.Trace.TraceID() {
				t.Errorf("%s has the exemplar %q", name.String(), exemplar)
			}
		}
	}
	for name, want := range map[string]float64{
		"gen_ai_client_token_usage input": 3, "gen_ai_client_token_usage output": 2, "gen_ai_server_request_duration_seconds": 2,
		"gen_ai_server_time_to_first_token_seconds": 0.02, "gen_ai_server_time_per_output_token_seconds": 1.98,
	} {
		if sums[name] != want {
			t.Errorf("%s: %v, want %v", name, sums[name], want)
		}
	}
}
