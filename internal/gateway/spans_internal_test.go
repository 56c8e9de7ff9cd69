package gateway

import (
	"io"
	"net"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/config"
	"tollgate/internal/trace"
)

// BenchmarkTracedRecord is what a finished request costs the recorder, with its line.
func BenchmarkTracedRecord(b *testing.B) {
	lis, err := net.Listen("tcp", "127.0.0.1:0") // a collector that never answers
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	for name, endpoint := range map[string]string{"traces off": "", "traces on": lis.Addr().String()} {
		b.Run(name, func(b *testing.B) {
			r := newRecorder(prometheus.NewRegistry(), io.Discard)
			c := config.Default().OTel
			c.Endpoint = endpoint
			s, err := newSpans(&c, prometheus.NewRegistry(), hclog.NewNullLogger())
			if err != nil {
				b.Fatal(err)
			}
			defer s.close()
			r.spans = s
			a := finished()
			if s != nil {
				a.Trace, _ = trace.NewSampler(1).Begin(nil)
			}
			b.ReportAllocs()
			for b.Loop() {
				r.record(a)
			}
		})
	}
}
