package service

import (
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/mtls"
)

// Metrics of the port. A nil registerer of [NewMetrics] keeps them to themselves.
type Metrics struct {
	expires     *prometheus.GaugeVec
	lifetime    *prometheus.GaugeVec
	ok          prometheus.Gauge
	connections *prometheus.GaugeVec
	refused     *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		expires: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "service_tls_expiry_timestamp_seconds", Help: "When what service.listen uses expires: its certificate, or the last authority of the clients.",
		}, []string{"of"}),
		lifetime: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "service_tls_lifetime_seconds", Help: "From its beginning to then.",
		}, []string{"of"}),
		ok: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "service_tls_last_reload_ok", Help: "1 while the certificates in use are those of the files, 0 after a reload that failed.",
		}),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "service_connections", Help: "Connections of Envoys to service.listen that have shown a certificate.",
		}, []string{"protocol"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "service_connections_refused_total", Help: "Connections to service.listen that were closed because of the client.",
		}, []string{"reason"}),
	}
	for _, p := range []string{protocolGRPC, protocolHTTP} {
		m.connections.WithLabelValues(p)
	}
	for _, r := range reasons {
		m.refused.WithLabelValues(string(r))
	}
	if reg != nil {
		reg.MustRegister(m.expires, m.lifetime, m.ok, m.connections, m.refused)
	}
	return m
}

// loaded notes the material that is used from now on.
func (m *Metrics) loaded(material *mtls.Material) {
	m.ok.Set(1)
	for of, life := range map[string]mtls.Life{"certificate": material.Life, "client_ca": material.AuthorityLife} {
		m.expires.WithLabelValues(of).Set(float64(life.End.Unix()))
		m.lifetime.WithLabelValues(of).Set(life.End.Sub(life.Start).Seconds())
	}
}
