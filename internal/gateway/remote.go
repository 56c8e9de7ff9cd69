package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"tollgate/extauthz"
	"tollgate/internal/serve"
	"tollgate/internal/service"
)

const (
	// pingEvery is the silence after which a remote Envoy is asked whether it is there;
	// pingWait is what it gets to answer. It asks as often itself (envoy.yaml).
	pingEvery = 10 * time.Second
	pingWait  = 20 * time.Second
	// connectionAge is when an Envoy is asked to connect anew, with its certificate of
	// then: by GOAWAY, and over HTTP/1 by the next answer. Streams that run go on where
	// they are, and no request fails (seen with two seconds). Envoys that we configure
	// renew their connections earlier (envoy.yaml).
	connectionAge = 30 * time.Minute
)

// remote is the door for Envoys on other hosts.
type remote struct {
	certificates *service.Certificates
	port         *service.Port
	check        *extauthz.Server
}

// openRemote opens service.listen; nil where there is none.
func (g *Gateway) openRemote(ctx context.Context, log hclog.Logger, own prometheus.Registerer) (*remote, error) {
	c := &g.cfg.Service
	if c.Listen == "" {
		return nil, nil //nolint:nilnil // no door is no error
	}
	metrics, door := service.NewMetrics(own), log.Named("service")
	certificates, err := service.NewCertificates(c.TLS.Files(), c.TLS.ClientIDs, door, metrics)
	if err != nil {
		return nil, fmt.Errorf("service.tls: %w", err)
	}
	port, err := service.Listen(ctx, c.Listen, certificates, door, metrics)
	if err != nil {
		return nil, err
	}
	return &remote{certificates: certificates, port: port, check: g.checks(true, log)}, nil
}

// serveRemote adds the parts of the door to the group. They stop when the drain is over.
func (g *Gateway) serveRemote(ctx context.Context, group *run.Group) {
	r := g.remote
	if r == nil {
		return
	}
	//nolint:contextcheck // each stream has a context of its own
	server := g.grpcServer(r.check, grpc.KeepaliveParams(keepalive.ServerParameters{
		Time: pingEvery, Timeout: pingWait, MaxConnectionAge: connectionAge,
	}))
	group.Add(serve.GRPC(server, r.port.GRPC(), func() {}, stopGrace))
	group.Add(serve.HTTP(ctx, serve.Renew(g.api.Edge(false), connectionAge), r.port.HTTP(), stopGrace))
	group.Add(r.port.Serve, func(error) { _ = r.port.Close() })
	group.Add(serve.Loop(ctx, r.certificates.Run))
	g.log.Info("listening for Envoys on other hosts", "service", r.port.Addr().String())
}

func (r *remote) close() {
	if r != nil {
		_ = r.port.Close()
	}
}
