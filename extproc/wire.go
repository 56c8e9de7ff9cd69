package extproc

import (
	"fmt"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"tollgate/internal/rpc"
	"tollgate/internal/wire"
)

// The wire of ext_proc: one message each way per chunk. Envoy repeats the
// metadata on every message, and the answer to most chunks is the same few
// bytes, so what comes is read without building a message, an answer that never
// differs is encoded once, and those that every request needs are encoded by
// hand. Refusals and the model list go through the generated code.

// inbound is one message from Envoy.
type inbound struct {
	field int    // its kind, one of the in… numbers; 0 = none that Envoy sends
	body  []byte // of a body: valid until free
	end   bool   // end_of_stream
	head  head   // of headers

	buffer mem.Buffer
}

// free gives the memory of a body back.
func (in *inbound) free() {
	if in.buffer != nil {
		in.buffer.Free()
		in.buffer, in.body = nil, nil
	}
}

// outbound is one answer. Exactly one field but meta is set.
type outbound struct {
	prepared []byte  // encoded already, never changed
	chunk    []byte  // replaces a chunk of the answer; copied when it is sent
	clear    bool    // removes a chunk of the answer
	request  *[]byte // of rpc.Buffers: replaces the request's body; given back by the transport
	message  *extprocv3.ProcessingResponse
	meta     []byte // beside request: encoded dynamic metadata
}

// Encode implements [rpc.Encoder].
func (out *outbound) Encode() (mem.BufferSlice, error) {
	switch {
	case out.prepared != nil:
		return mem.BufferSlice{mem.SliceBuffer(out.prepared)}, nil
	case out.clear:
		return mem.BufferSlice{mem.SliceBuffer(clearChunk)}, nil
	case out.chunk != nil:
		return mem.BufferSlice{chunkAnswer(out.chunk)}, nil
	case out.request != nil:
		return mem.BufferSlice{mem.SliceBuffer(append(out.meta, requestPrefix(*out.request)...)), mem.NewBuffer(out.request, rpc.Buffers)}, nil
	}
	b, err := proto.Marshal(out.message)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Decode implements [rpc.Decoder].
func (in *inbound) Decode(data mem.BufferSlice) error {
	buffer := data.MaterializeToBuffer(rpc.Buffers)
	raw := buffer.ReadOnlyData()
	in.field, in.body, in.end = 0, nil, false
	// Envoy writes the body first; other writers may not.
	body, err := wire.Find(raw, inRequestBody, inResponseBody)
	if err != nil {
		buffer.Free()
		return fmt.Errorf("decode ext_proc message: %w", err)
	}
	if body.Num != 0 {
		// The rest is the metadata, which is known since the headers.
		in.field, in.buffer = body.Num, buffer
		return in.readBody(body.Bytes)
	}
	defer buffer.Free()
	in.head = head{}
	if err := in.decodeHead(raw); err != nil {
		return fmt.Errorf("decode ext_proc message: %w", err)
	}
	return nil
}

// prepare encodes an answer that never differs.
func prepare(m *extprocv3.ProcessingResponse) *outbound {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // cannot happen: the message is built at start
	}
	return &outbound{prepared: b}
}

// Register serves the ext_proc service. The server needs [rpc.ServerOptions].
func Register(r grpc.ServiceRegistrar, s *Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: extprocv3.ExternalProcessor_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName:    extprocv3.ExternalProcessor_ServiceDesc.Streams[0].StreamName,
			Handler:       func(_ any, stream grpc.ServerStream) error { return s.process(stream) },
			ServerStreams: true,
			ClientStreams: true,
		}},
		Metadata: extprocv3.ExternalProcessor_ServiceDesc.Metadata,
	}, s)
}
