// Package accesslog is the adapter for Envoy's gRPC access log, the second
// witness: one entry per finished request, aborts and refusals included. It
// turns an entry into [admission.Witness] and decides nothing.
package accesslog

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/internal/admission"
)

// Witnesser takes the proxy's account of a request; it must not block for long.
type Witnesser interface {
	Witness(w admission.Witness)
}

// proxyWatcher is told when the proxy itself is gone. A [Witnesser] that is
// one is told by [Server].
type proxyWatcher interface {
	ProxyGone()
}

// Server hears Envoy's log; see [Register].
type Server struct {
	tell     Witnesser
	streams  atomic.Int64
	stopOnce sync.Once
	stopped  chan struct{}
}

// NewServer returns a server that tells w.
func NewServer(w Witnesser) *Server {
	return &Server{tell: w, stopped: make(chan struct{})}
}

// Stop ends the log streams: they live as long as Envoy's workers, and a
// graceful stop of the gRPC server would wait for them forever.
func (s *Server) Stop() { s.stopOnce.Do(func() { close(s.stopped) }) }

// Streams is the number of open log streams, one per Envoy worker that has
// finished a request.
func (s *Server) Streams() int64 { return s.streams.Load() }

// Register serves the access log service. The server needs [rpc.ServerOptions].
func Register(r grpc.ServiceRegistrar, s *Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: alsv3.AccessLogService_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName:    alsv3.AccessLogService_ServiceDesc.Streams[0].StreamName,
			Handler:       func(_ any, stream grpc.ServerStream) error { return s.hear(stream) },
			ClientStreams: true,
		}},
		Metadata: alsv3.AccessLogService_ServiceDesc.Metadata,
	}, s)
}

// hear is one log stream.
func (s *Server) hear(stream grpc.ServerStream) error {
	s.streams.Add(1)
	ended := make(chan error, 1)
	go func() { ended <- s.receive(stream) }()
	select {
	case err := <-ended:
		s.left()
		return err
	case <-s.stopped:
		s.streams.Add(-1)
		return status.Error(codes.Unavailable, "stopping")
	}
}

// left counts a stream out that Envoy has ended. It never ends one while it
// lives, so the end of the last one is Envoy's own.
func (s *Server) left() {
	if s.streams.Add(-1) > 0 {
		return
	}
	if w, ok := s.tell.(proxyWatcher); ok {
		w.ProxyGone()
	}
}

func (s *Server) receive(stream grpc.ServerStream) error {
	var b batch
	for {
		err := stream.RecvMsg(&b)
		switch {
		case errors.Is(err, io.EOF), status.Code(err) == codes.Canceled:
			return nil
		case err != nil:
			return err
		}
		for i := range b.entries {
			if e := &b.entries[i]; e.final() {
				s.tell.Witness(e.witness())
			}
		}
	}
}
