// Package rpc is what the adapters need of gRPC beyond its generated code: a
// codec for messages that read and write themselves, buffers that are used
// again, and an end to one stream from outside.
package rpc

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
)

// streamWorkers is how many streams at a time find a goroutine whose stack has
// grown already: every new one copies its stack two or three times on its way down
// to a decision. Streams beyond them get a goroutine of their own.
const streamWorkers = 64

// ServerOptions are what a server of the adapters needs. All of them are marked
// experimental in gRPC 1.85, as is its package mem.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.NumStreamWorkers(streamWorkers),
		experimental.BufferPool(Buffers),
	}
}
