package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/ledger"
	"tollgate/internal/vllm"
)

const (
	// defaultInterval is the time between two comparisons.
	defaultInterval = 15 * time.Second
	// foldAfter is the age at which a row is taken as final. No row that started earlier
	// can appear after that either: a body may take a minute to arrive.
	foldAfter = 2 * time.Minute
)

// Options say which engines and ledger a [Watcher] compares.
type Options struct {
	Engines []string // host:port, at least one
	Book    Book
	// Path is the file that gets the baselines, for the command line. Empty: none.
	Path     string
	Interval time.Duration // 0: 15 s
	Log      hclog.Logger
	// Reg gets engine_token_drift, engine_tokens_unrecorded and
	// ledger_tokens_excess, each by type.
	Reg prometheus.Registerer
}

// Watcher compares all the time and exposes the drift.
type Watcher struct {
	o     Options
	drift *prometheus.GaugeVec
	// missing and excess are the two directions of drift. In their sum the drift of one
	// engine could hide the drift of another.
	missing, excess *prometheus.GaugeVec
	spans           []*span // by engine, touched by Run only
}

// span is the running window of one engine. It begins when the service or the engine
// starts, whichever is later: a counter that begins anew has lost its tokens since the
// last look.
type span struct {
	client *vllm.Client
	mine   func(*ledger.Record) bool
	base   *Baseline // nil until the engine was reached
	last   Reading
	cursor time.Time // rows that started before it are folded
	folded Account
	live   Account
	drift  Counters
}

// NewWatcher returns a watcher; [Watcher.Run] does the work.
func NewWatcher(o Options) *Watcher {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	w := &Watcher{
		o: o,
		drift: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "engine_token_drift",
			Help: "Tokens that the engines counted beyond the ledger since the last restart of either: of cut requests it may be above 0, never below.",
		}, []string{"type"}),
	}
	w.missing = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "engine_tokens_unrecorded",
		Help: "Tokens that engines counted beyond the ledger, of the engines that are ahead of it: of cut requests, or of whoever reaches an engine without the gateway.",
	}, []string{"type"})
	w.excess = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ledger_tokens_excess",
		Help: "Tokens that the ledger says beyond what engines counted, of the engines that are behind it: must be 0.",
	}, []string{"type"})
	for _, e := range o.Engines {
		w.spans = append(w.spans, &span{client: Client(e)})
	}
	w.show()
	if o.Reg != nil {
		o.Reg.MustRegister(w.drift, w.missing, w.excess)
	}
	return w
}

// Run compares until ctx ends. The first comparison waits for nothing.
func (w *Watcher) Run(ctx context.Context) error {
	t := time.NewTicker(w.o.Interval)
	defer t.Stop()
	defer func() {
		for _, s := range w.spans {
			s.client.Close()
		}
	}()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// look compares every engine once.
func (w *Watcher) look(ctx context.Context) {
	began := false
	for _, s := range w.spans {
		fresh, err := w.compare(ctx, s)
		if err != nil && ctx.Err() == nil {
			// An engine that is down says so elsewhere; its drift stays as it was.
			w.o.Log.Debug("cannot compare the ledger with the engine", "engine", s.client.Address(), "error", err)
		}
		began = began || fresh
	}
	w.show()
	if began && w.o.Path != "" {
		if err := save(w.o.Path, w.baselines()); err != nil {
			w.o.Log.Warn("cannot keep the baselines of reconciliation", "error", err)
		}
	}
}

// show sets the gauges to the drift of all engines.
func (w *Watcher) show() {
	for kind, of := range map[string]func(Counters) int64{
		"input":  func(c Counters) int64 { return c.Prompt },
		"output": func(c Counters) int64 { return c.Generation },
	} {
		var missing, excess int64
		for _, s := range w.spans {
			missing += max(0, of(s.drift))
			excess += max(0, -of(s.drift))
		}
		w.drift.WithLabelValues(kind).Set(float64(missing - excess))
		w.missing.WithLabelValues(kind).Set(float64(missing))
		w.excess.WithLabelValues(kind).Set(float64(excess))
	}
}

func (w *Watcher) baselines() []Baseline {
	list := []Baseline{}
	for _, s := range w.spans {
		if s.base != nil {
			list = append(list, *s.base)
		}
	}
	return list
}

// compare extends one window to now; began means that a new window has begun.
func (w *Watcher) compare(ctx context.Context, s *span) (began bool, err error) {
	if s.mine == nil {
		s.mine = owner(ctx, s.client.Address(), len(w.spans) == 1)
	}
	if s.base == nil {
		return w.begin(ctx, s)
	}
	if err := s.read(ctx, w.o.Book); err != nil {
		return false, err
	}
	now, err := scrape(ctx, s.client)
	if err != nil {
		return false, err
	}
	if now.anew(s.last) {
		w.o.Log.Info("the engine's counters began anew", "engine", s.client.Address())
		return w.begin(ctx, s)
	}
	s.last = now
	total := s.folded
	total.merge(s.live)
	s.drift = now.minus(s.base.Counters).minus(total.Counters)
	return false, nil
}

func (w *Watcher) begin(ctx context.Context, s *span) (bool, error) {
	base, err := Take(ctx, s.client)
	if err != nil {
		return false, err
	}
	*s = span{client: s.client, mine: s.mine, base: &base, last: base.Reading, cursor: base.At}
	return true, nil
}

// read sums the rows since the cursor and moves the cursor over the final ones, up to
// the first row that may still change.
func (s *span) read(ctx context.Context, book Book) error {
	now := time.Now()
	s.live = Account{}
	var group Account // of the rows that started in one microsecond
	var at time.Time
	changing := false
	flush := func() {
		if changing {
			s.live.merge(group)
		} else if !at.IsZero() {
			s.folded.merge(group)
			s.cursor = at.Add(time.Microsecond)
		}
		group = Account{}
	}
	err := book.Each(ctx, ledger.Filter{Since: s.cursor}, func(r ledger.Record) error {
		if !r.StartedAt.Equal(at) {
			flush()
			at = r.StartedAt
		}
		changing = changing || r.Open() || now.Sub(r.EndedAt) < foldAfter || now.Sub(r.StartedAt) < foldAfter
		if s.mine(&r) {
			group.add(&r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	flush()
	return nil
}
