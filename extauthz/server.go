// Package extauthz is the adapter for Envoy's external authorization: it turns
// a CheckRequest into an arrival, and the gate's ticket or refusal into a
// CheckResponse. It decides nothing itself.
package extauthz

import (
	"context"
	"errors"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/internal/admission"
	"tollgate/internal/route"
	"tollgate/internal/ticket"
	"tollgate/internal/trace"
)

// Admitter decides over an arrival. [*admission.DenialError] is a refusal; any
// other error means that it could not decide.
type Admitter interface {
	Admit(ctx context.Context, a admission.Arrival) (admission.Ticket, error)
}

// Options say what the edge takes.
type Options struct {
	TrustedProxies int      // hops in front of Envoy whose x-forwarded-for is believed
	Port           string   // the one that clients of this machine connect to; "" = any
	AdminPort      string   // the same of the administrators' listener, where there is one
	AllowOrigins   []string // whose pages may call; "*" = all
	MaxBody        int64    // bytes; 0 = no bound
	// Remote: the Envoys may be on other hosts. A client that is on the machine of its
	// Envoy is then not on this one.
	Remote bool
	// Issuer names this process in its tickets. Seal makes what another process needs
	// to claim one; nil where there is no other.
	Issuer string
	Seal   func(admission.Facts) string
	// Trace decides which requests are traced; nil: none, and the header of clients passes
	// as it is.
	Trace *trace.Sampler
	Log   hclog.Logger
}

// Server answers Envoy's checks; see [Register].
type Server struct {
	admit Admitter
	o     Options
}

// NewServer returns a server that asks admit.
func NewServer(admit Admitter, o Options) *Server { return &Server{admit: admit, o: o} }

// Register serves the ext_authz service. The server needs [rpc.ServerOptions].
func Register(r grpc.ServiceRegistrar, s *Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: authv3.Authorization_ServiceDesc.Methods[0].MethodName,
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				c := new(check)
				if err := decode(c); err != nil {
					return nil, err
				}
				return s.check(ctx, c)
			},
		}},
		Metadata: authv3.Authorization_ServiceDesc.Metadata,
	}, s)
}

// check answers one check. An unexpected error is a gRPC error: only then Envoy applies
// status_on_error (503); an answer without OK and without an HTTP response would be a
// 403 that blames the user.
func (s *Server) check(ctx context.Context, c *check) (*answer, error) {
	a := s.arrival(c)
	passed := s.trace(c, &a)
	t, err := s.admit.Admit(ctx, a)
	if err == nil && a.Refused != nil {
		err = a.Refused // no key lets this request pass
	}
	var denied *admission.DenialError
	switch {
	case errors.As(err, &denied):
		out := refusal(c.shape(), denied)
		// Of the methods of /admin only its pages know which path has which.
		if c.grpc() || denied.Reason == admission.WrongMethod && c.route.Endpoint == route.Admin {
			out = handOver(denied)
		}
		out.ticket.Trace = a.Trace.String()
		return out, nil
	case err != nil && ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, admission.ErrGone):
		return nil, status.Error(codes.Unavailable, "gone")
	case err != nil:
		s.o.Log.Error("cannot decide", "request_id", a.RequestID, "error", err)
		return nil, status.Error(codes.Unavailable, "cannot decide")
	case s.preflight(c):
		return allowPage(c.headers.origin[0]), nil
	}
	carried := s.ticket(&t)
	carried.Trace = a.Trace.String()
	out := pass(c.route, &a, t, carried)
	out.trace = passed
	return out, nil
}

// trace begins the span of a request to an engine, and returns what the engine is told
// of it; the zero value where nothing is traced.
func (s *Server) trace(c *check, a *admission.Arrival) (passed trace.Passed) {
	if s.o.Trace != nil && (c.route.Class == admission.Inference || c.route.Class == admission.Counting) {
		a.Trace, passed = s.o.Trace.Begin(c.headers.traceparent)
	}
	return passed
}

// ticket is what the request carries through Envoy.
func (s *Server) ticket(t *admission.Ticket) ticket.Ticket {
	carried := ticket.Ticket{LeaseID: t.LeaseID, KeyID: t.KeyID}
	if t.LeaseID != "" {
		carried.Issuer = s.o.Issuer
		if s.o.Seal != nil {
			carried.Facts = s.o.Seal(t.Facts())
		}
	}
	return carried
}
