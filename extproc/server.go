package extproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
	"tollgate/internal/rpc"
	"tollgate/internal/ticket"
)

// Claimer turns a ticket into the session of one stream;
// [admission.ErrTicket] when it is unknown, expired or used.
type Claimer interface {
	Claim(ctx context.Context, leaseID string) (*admission.Session, error)
}

// Options are what a [Server] is made of.
type Options struct {
	Claim Claimer
	// ClaimForeign is asked for tickets that Claim does not know: another gateway may
	// have issued them. Nil where there is no other.
	ClaimForeign func(ctx context.Context, t *ticket.Ticket) (*admission.Session, error)
	Limits       openai.Limits // CacheSalt is set per key when IsolateCache
	// IsolateCache gives each key its own prefix cache in vLLM.
	IsolateCache bool
	// Bodies bounds the bytes of all request bodies in memory; nil: no bound.
	Bodies *Budget
	// Meters are the meters inside Envoys that answers are handed over to; nil: none.
	Meters  Meters
	Metrics *Metrics
	Log     hclog.Logger
}

// claim turns a ticket of this gateway or of another one into a session.
func (o *Options) claim(ctx context.Context, t *ticket.Ticket) (*admission.Session, error) {
	s, err := o.Claim.Claim(ctx, t.LeaseID)
	if o.ClaimForeign != nil && errors.Is(err, admission.ErrTicket) {
		return o.ClaimForeign(ctx, t)
	}
	return s, err
}

// Server answers Envoy's ext_proc streams; see [Register].
type Server struct {
	o Options
	// large has a place for each large body that may be parsed at a time.
	large chan struct{}
}

// NewServer returns a server; all of Options but Bodies must be set.
func NewServer(o Options) *Server {
	return &Server{o: o, large: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
}

// errCut ends a stream from outside: cancelled, revoked or drained. Where it does,
// what process returns is not heard any more.
var errCut = status.New(codes.Unavailable, "request was cut")

// process is one stream: the loop and the one place where the session is
// closed. It returns nil only when the stream has ended, by Envoy or by a cut, or when
// the answer was handed over: a clean end by us lets the rest of the answer flow
// past us, whatever failure_mode_allow says, which is wanted there and nowhere else.
// Every other end is an error status, which cuts the client.
func (s *Server) process(stream grpc.ServerStream) (err error) {
	own, err := rpc.StreamOf(stream.Context())
	if err != nil {
		s.o.Log.Error("cannot process a stream", "error", err)
		return status.Error(codes.Unavailable, "cannot process")
	}
	x := &exchange{o: &s.o, stream: own, send: stream.SendMsg, large: s.large}
	// However the stream ends - half-close, reset, our own error - the session
	// goes back here and nowhere else. Whether the answer was complete is
	// another question, which only the answer's own bytes decide.
	ctx := stream.Context()
	defer x.close(ctx)
	defer func() {
		if p := recover(); p != nil {
			s.o.Metrics.panics.Inc()
			s.o.Log.Error("panic in a stream", "request_id", x.requestID, "error", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "internal error")
		}
	}()
	for {
		err := stream.RecvMsg(&x.in)
		switch {
		case errors.Is(err, io.EOF), status.Code(err) == codes.Canceled:
			return nil
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		}
		if err := s.answer(ctx, stream, x); err != nil || x.handed {
			return err
		}
	}
}

// answer takes the step that a message asks for. While a body arrives, the watch
// over its rate may answer instead, so the two take turns.
func (s *Server) answer(ctx context.Context, stream grpc.ServerStream, x *exchange) error {
	if x.body.on {
		x.body.mu.Lock()
		defer x.body.mu.Unlock()
		if x.body.expired {
			x.in.free()
			return nil
		}
	}
	out, err := x.step(ctx)
	if err == nil && out != nil {
		out, err = x.handOver(ctx, out)
	}
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, errGone) { // else the client has gone, or the request was cut
			s.o.Log.Error("cannot process message", "request_id", x.requestID, "error", err)
		}
		return status.Error(codes.Unavailable, "cannot process")
	}
	if out != nil {
		err = stream.SendMsg(out)
	}
	x.sent()
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}
