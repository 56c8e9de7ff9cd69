package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// Cut ends a stream with a status while its handler waits in RecvMsg or SendMsg,
// which then fail; ctx is the stream's. Returning from the handler is gRPC's only
// other way, and it would need a second goroutine for each stream. It is safe at
// any time, again and after the stream's end.
//
// The method is gRPC's own (1.85: transport.ServerStream), which it calls for a
// handler that returns; it is not in the interface. Cut panics where it is gone.
func Cut(ctx context.Context, st *status.Status) {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(st *status.Status) error })
	if !ok {
		panic("rpc: gRPC's streams cannot be ended from outside any more")
	}
	_ = stream.WriteStatus(st) // fails where the connection is gone, and the stream with it
}
