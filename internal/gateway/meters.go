package gateway

import (
	"context"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/meterlink"
)

// meters is what the words of the meters inside Envoy mean for requests. No answer
// is handed over to a meter yet, so none of what they may say is of a request of ours.
type meters struct {
	link *meterlink.Server
	log  hclog.Logger
}

func newMeters(dir string, own prometheus.Registerer, log hclog.Logger) *meters {
	m := &meters{log: log}
	m.link = meterlink.New(meterlink.Options{Sink: m, Dir: dir, Metrics: meterlink.NewMetrics(own), Log: log})
	return m
}

// Live implements [meterlink.Sink].
func (*meters) Live(string, []meterlink.Count) {}

// Ended implements [meterlink.Sink]: a record of nobody's is acknowledged, so that
// its meter forgets it.
func (m *meters) Ended(_ context.Context, r meterlink.Record) error {
	m.log.Debug("a meter's record is of no request", "lease_id", r.Lease)
	return nil
}

// Asked implements [meterlink.Sink].
func (*meters) Asked(string, string, int64) {}

// Listed implements [meterlink.Sink].
func (*meters) Listed(string, map[string]struct{}) {}

// Gone implements [meterlink.Sink].
func (*meters) Gone(string) {}
