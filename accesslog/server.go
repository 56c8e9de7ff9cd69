// Package accesslog is the adapter for Envoy's gRPC access log, the second
// witness: one entry per finished request, aborts and refusals included. It
// turns an entry into [admission.Witness] and decides nothing.
package accesslog

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
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

// Server implements [alsv3.AccessLogServiceServer].
type Server struct {
	alsv3.UnimplementedAccessLogServiceServer

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

// StreamAccessLogs implements [alsv3.AccessLogServiceServer].
func (s *Server) StreamAccessLogs(stream alsv3.AccessLogService_StreamAccessLogsServer) error {
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

func (s *Server) receive(stream alsv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		msg, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF), status.Code(err) == codes.Canceled:
			return nil
		case err != nil:
			return err
		}
		for _, e := range msg.GetHttpLogs().GetLogEntry() {
			if final(e) {
				s.tell.Witness(witness(e))
			}
		}
	}
}

// final: end entries only. Envoy sends no others with our configuration, but
// somebody's own may.
func final(e *datav3.HTTPAccessLogEntry) bool {
	t := e.GetCommonProperties().GetAccessLogType()
	return t == datav3.AccessLogType_NotSet || t == datav3.AccessLogType_DownstreamEnd
}
