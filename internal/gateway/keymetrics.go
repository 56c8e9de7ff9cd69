package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tollgate/internal/apikey"
	"tollgate/internal/limit"
)

const (
	// keySeries bounds the keys with a series of their own: the first by their order in
	// the key file.
	keySeries = 1000
	// quotaEvery is the least time between two looks at the quotas, however many scrape;
	// quotaTimeout bounds one, quotaAtOnce how many keys are asked for at a time.
	quotaEvery   = 15 * time.Second
	quotaTimeout = 3 * time.Second
	quotaAtOnce  = 16
)

// keyMetrics tells whose each key is, and how much of its quota it has used.
type keyMetrics struct {
	ratios *prometheus.GaugeVec
	infos  *prometheus.GaugeVec
	keys   func() *apikey.Ring
	limits limit.Store
	caps   limit.Caps
	ledger interface {
		Used(ctx context.Context, keyID string, since, until time.Time) (int64, error)
	}

	mu sync.Mutex
	at time.Time // of the last look; guarded by mu
}

// registerKeys registers the metrics of keys on own.
func registerKeys(own prometheus.Registerer, q *keyMetrics) {
	q.ratios = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quota_used_ratio", Help: "Part of a key's quota that is used in this period, with what running requests hold; of the first 1000 keys that have one.",
	}, []string{"key"})
	q.infos = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "key_info", Help: "1 for each of the first 1000 keys, with its user, to sum what keys use by user.",
	}, []string{"api_key", "user"})
	own.MustRegister(q)
}

// Describe implements [prometheus.Collector].
func (q *keyMetrics) Describe(ch chan<- *prometheus.Desc) {
	q.ratios.Describe(ch)
	q.infos.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (q *keyMetrics) Collect(ch chan<- prometheus.Metric) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now(); now.Sub(q.at) >= quotaEvery {
		q.at = now
		q.look(now)
	}
	q.ratios.Collect(ch)
	q.infos.Collect(ch)
}

// look asks for all of them. A key that nobody can tell of now has no value.
func (q *keyMetrics) look(now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), quotaTimeout)
	defer cancel()
	q.ratios.Reset()
	q.infos.Reset()
	var group errgroup.Group
	group.SetLimit(quotaAtOnce)
	asked := 0
	for i, key := range q.keys().Keys() {
		if i < keySeries {
			q.infos.WithLabelValues(key.ID, key.User).Set(1)
		}
		caps := key.Caps(q.caps, now)
		if caps.Quota <= 0 || asked == keySeries {
			continue
		}
		asked++
		group.Go(func() error {
			if ratio, err := q.ratio(ctx, key, caps, now); err == nil {
				q.ratios.WithLabelValues(key.ID).Set(ratio)
			}
			return nil
		})
	}
	_ = group.Wait() // none fails
}

// ratio is the part of one key's quota.
func (q *keyMetrics) ratio(ctx context.Context, key *apikey.Key, caps limit.Caps, now time.Time) (float64, error) {
	view, err := q.limits.Key(ctx, key.ID, caps)
	if err == nil && view.QuotaUsed < 0 { // no request since the start
		view.QuotaUsed, err = q.ledger.Used(ctx, key.ID, key.QuotaPeriod.Start(now), time.Time{})
	}
	return float64(view.QuotaUsed+view.QuotaHeld) / float64(caps.Quota), err
}
