package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/oklog/run"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"tollgate/accesslog"
	"tollgate/extauthz"
	"tollgate/extproc"
	"tollgate/internal/admin"
	"tollgate/internal/rpc"
	"tollgate/internal/serve"
)

const (
	// stopGrace is what a server gets to stop after its streams have ended.
	stopGrace = time.Second
	// streamWindow and connWindow are the bytes that Envoy may send ahead of us.
	streamWindow = 256 << 10
	connWindow   = 8 << 20
	// socketBuffer is the bytes that one read or write of a connection may move.
	socketBuffer = 128 << 10
	// cutWait is what cut streams get to settle.
	cutWait = 3 * time.Second
	// logWait is what the log entries of ended streams get to come, which name
	// their ends.
	logWait = 1500 * time.Millisecond
	// retainEvery is between two rounds of the ledger's retention, retainBatch
	// the rows of one deletion.
	retainEvery = time.Hour
	retainBatch = 500
)

// Run serves until ctx ends or a part fails. The order in which parts are
// added is the order in which they stop: streams first, then what records
// them, the scrape page last, so that the drain itself can be scraped.
func (g *Gateway) Run(ctx context.Context) error {
	var group run.Group
	stop, cancel := context.WithCancel(ctx)
	group.Add(func() error { <-stop.Done(); return errStopped }, func(error) { cancel() })
	//nolint:contextcheck // a stream has a context of its own
	group.Add(serve.GRPC(g.grpcServer(g.check), g.grpcLis, g.drain, stopGrace))
	group.Add(g.serveMeters(ctx))
	g.serveRemote(ctx, &group)
	group.Add(serve.HTTP(ctx, g.api.Edge(true), g.httpLis, stopGrace))
	group.Add(serve.HTTP(ctx, g.api.Local(), g.adminLis, stopGrace))
	group.Add(serve.Loop(ctx, g.gate.Run))
	group.Add(serve.Loop(ctx, g.replicas.Run))
	group.Add(serve.Loop(ctx, g.records.Run))
	group.Add(serve.Loop(ctx, g.keys.Run))
	group.Add(serve.Loop(ctx, g.followKeys))
	group.Add(serve.Loop(ctx, g.audit))
	group.Add(serve.Loop(ctx, g.reloadOnSignal))
	group.Add(serve.Loop(ctx, g.engines.Run))
	group.Add(serve.Loop(ctx, g.retain))
	group.Add(serve.Loop(ctx, g.writes.Run))
	group.Add(serve.Loop(ctx, g.central.run))
	group.Add(serve.Loop(ctx, g.warnOfParts))
	group.Add(serve.Loop(ctx, g.drift.Run))
	group.Add(serve.HTTP(ctx, g.scrapePage(), g.metricsLis, stopGrace))

	g.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	g.log.Info("ready", "socket", g.grpcLis.Addr().String(), "metrics", g.metricsLis.Addr().String(), "keys", g.keys.Current().Len())
	err := group.Run()
	g.spans.close() //nolint:contextcheck // the one of the run has ended
	g.central.close()
	if cerr := errors.Join(g.limits.Close(), g.ledger.Close()); cerr != nil {
		g.log.Error("cannot close", "error", cerr)
	}
	g.log.Info("stopped")
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// serveMeters begins to hear the meters inside Envoys at once, and returns the two
// halves of a group for the rest. Requests that run already are known then, or their
// meters were waited for long enough: they count in the first decision.
func (g *Gateway) serveMeters(ctx context.Context) (execute func() error, interrupt func(error)) {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- g.meters.link.Serve(serving, g.meterLis) }()
	ctx, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	g.meters.link.AwaitLists(ctx)
	return func() error { return <-ended }, func(error) { stop() }
}

// grpcServer has all that Envoys call; check is what their checks come to.
func (g *Gateway) grpcServer(check *extauthz.Server, more ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(append(rpc.ServerOptions(), more...),
		// A body comes as one message; the headers beside it are small.
		grpc.MaxRecvMsgSize(g.cfg.Request.MaxBodyMB<<20+1<<20),
		// Fixed windows: what one stream may have in flight is bounded, and no
		// pings are spent on measuring a socket that never leaves the host.
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow),
		// A prompt in two system calls instead of seven. Two buffers for each
		// connection, of which Envoy has three per worker.
		grpc.ReadBufferSize(socketBuffer), grpc.WriteBufferSize(socketBuffer),
		// Envoy pings every 10 s (envoy.yaml); the default policy would answer
		// with GOAWAY.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)...)
	extauthz.Register(s, check)
	extproc.Register(s, g.proc)
	accesslog.Register(s, g.als)
	g.xds.Register(s)
	healthpb.RegisterHealthServer(s, g.health)
	return s
}

// drain refuses new requests, waits for the live ones, and cuts what is left
// after drain_timeout. The access log is heard to the last of them. Requests whose
// answers a meter inside Envoy has go on without us.
func (g *Gateway) drain() {
	g.health.Shutdown()
	g.gate.Drain()
	live := func() int { return len(g.gate.Live()) - g.gate.HandedOver() }
	if n := live(); n > 0 {
		g.log.Info("draining", "requests", n, "timeout", g.cfg.DrainTimeout.String())
	}
	if n := g.gate.HandedOver(); n > 0 {
		g.log.Info("requests go on in Envoy", "requests", n)
	}
	if !idle(live, g.cfg.DrainTimeout) {
		g.log.Warn("cutting requests that outlast drain_timeout", "requests", live())
		g.gate.CutAll()
		idle(live, cutWait)
	}
	idle(g.gate.Awaited, logWait)
	g.als.Stop()
	g.xds.Stop()
}

// idle waits until none of what is counted is left.
func idle(count func() int, timeout time.Duration) bool {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	end := time.After(timeout)
	for count() > 0 {
		select {
		case <-t.C:
		case <-end:
			return false
		}
	}
	return true
}

func (g *Gateway) scrapePage() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", g.metrics)
	mux.HandleFunc("GET /healthz", admin.Healthz)
	return serve.SameHost(mux, g.metricsLis.Addr())
}

// reloadOnSignal reads the key file again when asked from outside.
func (g *Gateway) reloadOnSignal(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.reload:
			sum, err := g.keys.Reload(false)
			if err != nil {
				g.log.Error("keys were not reloaded, the last good ones stay", "error", err)
				continue
			}
			g.log.Info("keys reloaded", "keys", sum.Keys, "enabled", sum.Enabled, "changed", sum.Changed)
		}
	}
}

// retain deletes what is older than ledger.keep_days, in small batches.
func (g *Gateway) retain(ctx context.Context) error {
	t := time.NewTicker(retainEvery)
	defer t.Stop()
	for {
		n, err := g.ledger.Retain(ctx, time.Now().AddDate(0, 0, -g.cfg.Ledger.KeepDays), retainBatch)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			g.log.Warn("cannot delete old records", "error", err)
		case n > 0:
			g.log.Info("deleted old records", "requests", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
