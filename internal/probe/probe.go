// Package probe asks a tollgate on this host whether it serves, over its gRPC socket.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"tollgate/internal/unixsock"
)

// ErrNotServing means that tollgate answers and serves nothing: it starts or stops.
var ErrNotServing = errors.New("tollgate is not serving")

// renewEvery is how many probes are sent over one connection. A new connection shows
// that the process still accepts connections. It costs more than all these probes, and
// a process that hangs answers on no connection anyway.
const renewEvery = 25

// Probe asks the gRPC health service on a socket. It is used by one goroutine at a time.
// The zero value with a Socket is ready to use; Close gives its connection back.
type Probe struct {
	Socket string
	conn   *grpc.ClientConn // nil: none yet
	asked  int              // over conn
}

// Serving is nil when tollgate serves.
func (p *Probe) Serving(ctx context.Context) error {
	if p.asked >= renewEvery {
		p.Close()
	}
	if p.conn == nil {
		conn, err := grpc.NewClient("passthrough:///tollgate",
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return unixsock.Dial(ctx, p.Socket) }),
		)
		if err != nil {
			return fmt.Errorf("ask tollgate: %w", err)
		}
		p.conn = conn
	}
	p.asked++
	resp, err := healthpb.NewHealthClient(p.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case err != nil:
		p.Close() // another process may answer next
		return fmt.Errorf("ask tollgate: %w", err)
	case resp.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return ErrNotServing
	}
	return nil
}

// Close may be called at any time; the next probe connects again.
func (p *Probe) Close() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	p.conn, p.asked = nil, 0
}
