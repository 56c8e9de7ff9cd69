package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// Stream ends a stream while its handler waits in RecvMsg or SendMsg, which then
// fail. Returning from the handler is gRPC's only other way, and it would need a
// second goroutine for each stream.
//
// WriteStatus may be called from any goroutine, more than once, and after the stream's
// end; the first end counts. It must not be called before the handler's first SendMsg
// has returned: gRPC could then write that message before the headers.
type Stream interface {
	WriteStatus(st *status.Status) error
}

// errNoStream means that this version of gRPC keeps its stream elsewhere.
var errNoStream = errors.New("gRPC's streams cannot be ended from outside")

// StreamOf returns the stream of a handler's context. It is gRPC's own (1.85:
// transport.ServerStream), which gRPC ends in the same way when the handler
// returns; the method is exported, but in no interface.
func StreamOf(ctx context.Context) (Stream, error) {
	s, ok := grpc.ServerTransportStreamFromContext(ctx).(Stream)
	if !ok {
		return nil, errNoStream
	}
	return s, nil
}
