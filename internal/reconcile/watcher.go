package reconcile

import (
	"context"
	"fmt"
	"slices"
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
	Engines func() []Engine // as they are at each look
	Book    Book
	// Path is the file that gets the baselines, for the command line. Empty: none.
	Path     string
	Interval time.Duration // 0: 15 s
	Log      hclog.Logger
	// Reg gets engine_token_drift, engine_tokens_unrecorded and
	// ledger_tokens_excess, each by engine, model and type.
	Reg prometheus.Registerer
}

// Engine is one engine that is compared.
type Engine struct {
	Address string // host:port
	Model   string // the one that it serves first; its adapters count as that; "" while it is not known
}

// Watcher compares all the time and exposes the drift.
type Watcher struct {
	o     Options
	drift *prometheus.GaugeVec
	// missing and excess are the two directions of drift. In their sum the drift of one
	// engine could hide the drift of another.
	missing, excess *prometheus.GaugeVec
	spans           []*span // by engine, touched by Run only
	// several: there was more than one engine, so that not every record is the one's.
	several bool
}

// span is the running window of one engine. It begins when the service or the engine
// starts, whichever is later: a counter that begins anew has lost its tokens since the
// last look.
type span struct {
	client *vllm.Client
	model  string
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
		}, []string{"engine", "model", "type"}),
	}
	w.missing = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "engine_tokens_unrecorded",
		Help: "Tokens that engines counted beyond the ledger, of the engines that are ahead of it: of cut requests, or of programs that reach an engine without the gateway.",
	}, []string{"engine", "model", "type"})
	w.excess = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ledger_tokens_excess",
		Help: "Tokens that the ledger says beyond what engines counted, of the engines that are behind it: must be 0.",
	}, []string{"engine", "model", "type"})
	w.follow()
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
	changed := w.follow()
	for _, s := range w.spans {
		fresh, err := w.compare(ctx, s)
		if err != nil && ctx.Err() == nil {
			// An engine that is down says so elsewhere; its drift stays as it was.
			w.o.Log.Debug("cannot compare the ledger with the engine", "engine", s.client.Address(), "error", err)
		}
		changed = changed || fresh
	}
	w.show()
	if changed && w.o.Path != "" {
		if err := save(w.o.Path, w.baselines()); err != nil {
			w.o.Log.Warn("cannot keep the baselines of reconciliation", "error", err)
		}
	}
}

// follow begins with engines that have come and forgets those that have gone; gone
// says that there were some of these.
func (w *Watcher) follow() (gone bool) {
	engines := w.o.Engines()
	w.spans = slices.DeleteFunc(w.spans, func(s *span) bool {
		there := slices.ContainsFunc(engines, func(e Engine) bool { return e.Address == s.client.Address() })
		if !there {
			s.client.Close()
			w.hide(s)
			gone = true
		}
		return !there
	})
	for _, e := range engines {
		i := slices.IndexFunc(w.spans, func(s *span) bool { return e.Address == s.client.Address() })
		if i < 0 {
			w.spans = append(w.spans, &span{client: Client(e.Address), model: e.Model})
			continue
		}
		if s := w.spans[i]; s.model != e.Model && e.Model != "" {
			w.hide(s)
			s.model = e.Model
		}
	}
	if len(w.spans) > 1 && !w.several {
		w.several = true
		for _, s := range w.spans {
			s.mine = nil // not every record any more
		}
	}
	return gone
}

// show sets the gauges to the drift of each engine.
func (w *Watcher) show() {
	for _, s := range w.spans {
		for kind, drift := range map[string]int64{"input": s.drift.Prompt, "output": s.drift.Generation} {
			w.drift.WithLabelValues(s.client.Address(), s.model, kind).Set(float64(drift))
			w.missing.WithLabelValues(s.client.Address(), s.model, kind).Set(float64(max(0, drift)))
			w.excess.WithLabelValues(s.client.Address(), s.model, kind).Set(float64(max(0, -drift)))
		}
	}
}

// hide takes the series of an engine away.
func (w *Watcher) hide(s *span) {
	for _, gauge := range []*prometheus.GaugeVec{w.drift, w.missing, w.excess} {
		gauge.DeletePartialMatch(prometheus.Labels{"engine": s.client.Address()})
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
		s.mine = owner(ctx, s.client.Address(), !w.several)
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
	*s = span{client: s.client, model: s.model, mine: s.mine, base: &base, last: base.Reading, cursor: base.At}
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
