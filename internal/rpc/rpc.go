// Package rpc adds to gRPC three things that the adapters need: a codec for messages
// that read and write themselves, buffers that are used again, and an end to one stream
// from outside.
package rpc

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
)

// streamWorkers is the number of goroutines that serve one stream after the other.
// Their stacks have grown already; a new goroutine copies its stack two or three times
// before it reaches a decision. Streams beyond this number get a goroutine of their
// own.
const streamWorkers = 64

// ServerOptions are the gRPC options that the adapters' server must have. All of them
// are marked experimental in gRPC 1.85, as is its package mem.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.NumStreamWorkers(streamWorkers),
		experimental.BufferPool(Buffers),
	}
}
