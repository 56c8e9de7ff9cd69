// Package gateway is the composition root of the service: it makes every part,
// joins them, runs them and stops them in order.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/health"

	"tollgate/accesslog"
	"tollgate/extauthz"
	"tollgate/extproc"
	"tollgate/internal/admin"
	"tollgate/internal/admission"
	"tollgate/internal/alias"
	"tollgate/internal/apikey"
	"tollgate/internal/audit"
	"tollgate/internal/config"
	"tollgate/internal/fleet"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/media"
	"tollgate/internal/openai"
	"tollgate/internal/reconcile"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/unixsock"
	"tollgate/internal/usage"
	"tollgate/xds"
)

// Options are what a gateway is made of.
type Options struct {
	Config *config.Config
	Log    hclog.Logger
	// Records gets one JSON line for each finished request; nil: nobody does.
	Records io.Writer
	// LostLines is how many lines of our own log could not be written; nil where
	// somebody else writes it.
	LostLines func() int64
	// Terminal gets the admin key of a key file that this process wrote, once.
	Terminal io.Writer
	// Reload makes the key file be read again at every receive (SIGHUP).
	Reload <-chan os.Signal
}

// Gateway is the service, ready to run.
type Gateway struct {
	cfg      *config.Config
	log      hclog.Logger
	reload   <-chan os.Signal
	keys     *apikey.Keyring
	ledger   *sqlitestore.Store
	central  *centralLedger
	limits   limit.Store
	engines  *fleet.Fleet
	xds      *xds.Server
	names    *alias.Table
	gate     *admission.Gate
	check    *extauthz.Server
	remote   *remote // nil: no Envoy on another host
	proc     *extproc.Server
	als      *accesslog.Server
	health   *health.Server
	api      *admin.API
	drift    *reconcile.Watcher
	metrics  http.Handler
	writes   *ledgerWatch
	replicas *replicas
	records  *recorder
	spans    *spans // nil: nothing is traced
	// auditOwed has who made a change of the keys that the audit could not take.
	auditOwed chan audit.Editor
	auditing  sync.Mutex // held while the audit of the keys is written
	meters    *meters

	grpcLis, httpLis, adminLis, meterLis, metricsLis net.Listener
}

// New makes every part and opens every listener, so that a port in use or a
// broken file is found before anything runs. What it opened is closed again
// when it fails.
func New(ctx context.Context, o Options) (_ *Gateway, err error) {
	g := &Gateway{
		cfg: o.Config, names: alias.New(o.Config.Aliases()), log: o.Log.Named("gateway"), reload: o.Reload, health: health.NewServer(),
		auditOwed: make(chan audit.Editor, 1),
	}
	defer func() { //nolint:contextcheck // what waits is sent also when ctx has ended
		if err != nil {
			g.close()
		}
	}()
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	own := prometheus.WrapRegistererWithPrefix("tollgate_", reg)
	buildInfo(own)
	if g.spans, err = newSpans(&o.Config.OTel, own, o.Log.Named("otel")); err != nil { //nolint:contextcheck // it connects when it has something to send
		return nil, err
	}
	// Exemplars, which name traces, are in OpenMetrics alone.
	g.metrics = promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: g.spans != nil})

	for _, w := range o.Config.Warnings() {
		g.log.Warn(w)
	}
	if err := unixsock.Folder(o.Config.RunDir()); err != nil {
		return nil, fmt.Errorf("use state_dir: %w", err)
	}
	if err := g.dialCentral(); err != nil { //nolint:contextcheck // it dials when it is first asked, and outlives the start
		return nil, err
	}
	if err := g.openKeys(ctx, o.Terminal, own); err != nil {
		return nil, err
	}
	if err := g.openLedger(ctx, own); err != nil {
		return nil, err
	}
	if err := g.openLimits(ctx, own); err != nil {
		return nil, err
	}
	g.engines, err = fleet.New(fleet.Options{
		File: fileEngines(o.Config), Path: o.Config.InState(config.EnginesFile), APIKeyFile: o.Config.VLLM.APIKeyFile,
		Self: selves(o.Config.Listen),
		// Only a resolver makes sense of a name that no engine lists.
		Resolve: o.Config.VLLM.LoRA.Runtime.Enabled && o.Config.VLLM.LoRA.Runtime.ResolverCacheDir != "",
		Log:     o.Log.Named("engine"), Reg: own,
	})
	if err != nil {
		return nil, fmt.Errorf("read engines: %w", err)
	}
	g.xds = xds.New(o.Log.Named("xds")) //nolint:contextcheck // its streams end with Stop
	g.engines.OnChange(g.tellEnvoy)
	g.join(reg, own, o)
	if err := g.replicas.start(ctx); err != nil {
		return nil, err
	}
	if err := g.listen(); err != nil { //nolint:contextcheck // what is opened outlives the start
		return nil, err
	}
	if g.remote, err = g.openRemote(ctx, o.Log, own); err != nil {
		return nil, err
	}
	return g, nil
}

// openKeys writes a missing key file, loads it, and shows the new admin key
// where only the person who started us can read it.
func (g *Gateway) openKeys(ctx context.Context, terminal io.Writer, own prometheus.Registerer) error {
	open := g.openKeyFile
	if g.cfg.Central.Keys {
		open = g.openSharedKeys
	}
	path, secret, err := open(ctx, own)
	if err != nil {
		return err
	}
	if secret != "" && terminal != nil {
		_, _ = fmt.Fprintf(terminal, "wrote %s; the admin key, shown this once: %s\n", path, secret)
	}
	ok := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "config_last_reload_ok", Help: "1 while the key file in use is the one on disk, 0 after a reload that failed.",
	})
	own.MustRegister(ok)
	ok.Set(1)
	g.keys.OnReload(func(good bool) {
		if good {
			ok.Set(1)
		} else {
			ok.Set(0)
		}
	})
	for _, w := range g.keys.Current().Warnings() {
		g.log.Warn(w)
	}
	if g.keys.Current().HasDefault() {
		g.log.Warn("the public default key is enabled. " + apikey.DefaultWarning)
	}
	return nil
}

// openKeyFile writes a missing key file and loads it; secret is that of a new
// admin key.
func (g *Gateway) openKeyFile(context.Context, prometheus.Registerer) (path, secret string, err error) {
	path = g.cfg.Auth.APIKeysFile
	created, _, err := apikey.Ensure(path)
	if err != nil {
		return "", "", fmt.Errorf("write key file: %w", err)
	}
	g.keys, err = apikey.Open(path, g.log.Named("keys"))
	if err != nil {
		return "", "", fmt.Errorf("read keys: %w", err)
	}
	return path, created.AdminSecret, nil
}

// openLedger ends what a crash left open: its streams are gone.
func (g *Gateway) openLedger(ctx context.Context, own prometheus.Registerer) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this gateway: %w", err)
	}
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{
		Path: g.cfg.LedgerPath(), Sync: g.cfg.Ledger.Sync, Gateway: host, Outbox: g.cfg.Central.PostgresFile != "", Log: g.log.Named("ledger"), Metrics: sqlitestore.NewMetrics(own),
	})
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	g.ledger, g.writes = store, newLedgerWatch(store.Ping)
	if err := g.openCentral(ctx, host, own); err != nil {
		return err
	}
	open, err := store.Open(ctx)
	if err != nil {
		return fmt.Errorf("recover ledger: %w", err)
	}
	g.meters = newMeters(g.cfg.RunDir(), open, own, g.log.Named("meter"))
	dead, at := unmetered(open), time.Now()
	n, err := store.Recover(ctx, dead, ledger.GatewayCrash, at)
	if err != nil {
		return fmt.Errorf("recover ledger: %w", err)
	}
	g.spans.ended(ctx, store, dead, at)
	if g.spans != nil {
		g.meters.spans, g.spans.rows = g.spans, store
	}
	if n > 0 {
		g.log.Warn("ended requests that a crash had left open", "requests", n)
	}
	return nil
}

// unmetered are the leases of open rows that died with the process which
// counted them. A meter in Envoy may still count the others.
func unmetered(open []ledger.Record) []string {
	var leases []string
	for i := range open {
		if open[i].Meter == "" {
			leases = append(leases, open[i].LeaseID)
		}
	}
	return leases
}

// join makes the gate and its adapters.
func (g *Gateway) join(base, own prometheus.Registerer, o Options) {
	log, rl := o.Log, g.cfg.RateLimit
	caps := g.caps()
	var addresses *limit.Addresses
	if rl.QPS != nil {
		addresses = limit.NewAddresses(*rl.QPS, 0, addressesKept)
	}
	g.records = newRecorder(base, o.Records)
	g.records.spans = g.spans
	registerKeys(own, &keyMetrics{keys: g.keys.Current, limits: g.limits, caps: caps, ledger: accounts{g.ledger, g.central}})
	g.gate = admission.NewGate(admission.Options{
		Keys: g.keys, Limits: g.limits, Addresses: addresses, Ledger: accounts{g.ledger, g.central}, Catalog: g.engines, Placing: g.placing(own),
		Format:    func(endpoint string) usage.Format { return openai.Endpoint(endpoint).Format() },
		Estimator: limit.NewEstimator(g.cfg.Request.DefaultOutputEstimate),
		Metrics:   admission.NewMetrics(base, own), Log: log.Named("admission"), Caps: caps,
		Generated: g.engines.Generated,
		Remember:  func(b []byte) error { return replaceFile(g.cfg.GenerationPath(), b) },
		Recalled:  fileOrNothing(g.cfg.GenerationPath()),
		Access:    g.records.record,
		Shared:    g.cfg.Store.Kind == "redis",
	})
	g.replicas = newReplicas(g.gate, g.limits, g.keys, log.Named("replica"))
	g.keys.OnChange(g.keysChanged)
	g.check = g.checks(false, log)
	bodies := extproc.NewBudget(int64(g.cfg.Request.MaxInflightBodyMB)<<20, int64(g.cfg.Request.MaxBodyMB)<<20)
	bodies.Register(own)
	fetchable, err := media.New(g.cfg.Request.MediaDomains)
	if err != nil {
		panic(err) // the configuration was checked when it was read
	}
	g.proc = extproc.NewServer(extproc.Options{
		Claim:        g.gate,
		ClaimForeign: g.replicas.claim,
		Limits:       openai.Limits{MaxN: g.cfg.Request.MaxN, MaxPrompts: g.cfg.Request.MaxPrompts, Media: fetchable},
		IsolateCache: g.cfg.Request.IsolatePrefixCache,
		Bodies:       bodies,
		Meters:       g.meters.link,
		Metrics:      extproc.NewMetrics(own), Log: log.Named("extproc"),
	})
	g.meters.serve(g.gate, g.ledger)
	g.als = accesslog.NewServer(g.replicas.witness())
	g.drift = reconcile.NewWatcher(reconcile.Options{
		Engines: g.compared, Book: g.ledger, Path: g.cfg.BaselinePath(),
		Log: log.Named("reconcile"), Reg: own,
	})
	hosts := g.hosts()
	own.MustRegister(admin.NewChildren(hosts, o.LostLines))
	g.api = admin.New(admin.Options{
		Gate: g.gate, Poll: g.meters.link.Poll, Replicas: g.replicas.others(), Keys: g.keys, Limits: g.limits, Caps: caps, Ledger: accounts{g.ledger, g.central}, Central: g.central.view(), Recording: g.writes.OK, Engines: g.engines, Aliases: g.names,
		Metrics: g.metrics, Hosts: hosts, LogDir: g.cfg.Log.Dir, Log: log.Named("admin"),
	})
}

// checks answers the checks of Envoys, which are on this host or may be on others.
func (g *Gateway) checks(remote bool, log hclog.Logger) *extauthz.Server {
	_, port, _ := net.SplitHostPort(g.cfg.Listen) // checked with the configuration
	_, adminPort, _ := net.SplitHostPort(g.cfg.AdminListen)
	return extauthz.NewServer(g.gate, extauthz.Options{
		Remote: remote, TrustedProxies: g.cfg.TrustedProxies, Port: port, AdminPort: adminPort, AllowOrigins: g.cfg.CORS.AllowOrigins,
		MaxBody: int64(g.cfg.Request.MaxBodyMB) << 20, Log: log.Named("extauthz"),
		Issuer: g.replicas.name, Seal: g.replicas.seal(), Trace: g.spans.choose(),
	})
}

// addressesKept bounds the table of client addresses.
const addressesKept = 65536

// hosts are the launchers that the admin API calls.
func (g *Gateway) hosts() []admin.Host {
	if len(g.cfg.Launchers) == 0 {
		return []admin.Host{admin.LauncherHost(g.cfg.InState(config.LauncherSocket), "")}
	}
	out := make([]admin.Host, 0, len(g.cfg.Launchers))
	for _, address := range g.cfg.Launchers {
		out = append(out, admin.LauncherHost(address, g.cfg.Launcher.TokenFile))
	}
	return out
}

func (g *Gateway) listen() (err error) {
	if g.meterLis, err = unixsock.Listen(g.cfg.InState(config.MeterSocket), 0o600); err != nil {
		return fmt.Errorf("listen for the meter: %w", err)
	}
	if g.grpcLis, err = unixsock.Listen(g.cfg.InState(config.GRPCSocket), 0o600); err != nil {
		return fmt.Errorf("listen for Envoy: %w", err)
	}
	if g.httpLis, err = unixsock.Listen(g.cfg.InState(config.HTTPSocket), 0o600); err != nil {
		return fmt.Errorf("listen for Envoy: %w", err)
	}
	if g.adminLis, err = unixsock.Listen(g.cfg.InState(config.AdminSocket), 0o600); err != nil {
		return fmt.Errorf("listen for commands of this host: %w", err)
	}
	if g.metricsLis, err = net.Listen("tcp", g.cfg.MetricsListen); err != nil {
		return fmt.Errorf("metrics_listen: %w", err)
	}
	return nil
}

// close gives back what New has opened; only for a gateway that never ran.
func (g *Gateway) close() {
	for _, l := range []net.Listener{g.grpcLis, g.httpLis, g.adminLis, g.meterLis, g.metricsLis} {
		if l != nil {
			_ = l.Close()
		}
	}
	g.spans.close()
	g.remote.close()
	if g.limits != nil {
		_ = g.limits.Close()
	}
	g.central.close()
	if g.ledger != nil {
		_ = g.ledger.Close()
	}
}

// errStopped ends the run group when a stop was asked for.
var errStopped = errors.New("stopped")
