package extproc

import (
	"fmt"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"tollgate/internal/wire"
)

// The wire of ext_proc: one message each way per chunk. Envoy repeats the
// metadata on every message, and the answer to most chunks is the same few
// bytes, so what comes is read without building a message, and an answer that
// never differs is encoded once. Other answers go through the generated code.

// Field numbers of envoy.service.ext_proc.v3.ProcessingResponse and of what is
// in it.
const (
	outRequestBody  = 3
	outResponseBody = 4
	bodyCommon      = 1
	commonHeaders   = 2
	commonBody      = 3
	mutationBody    = 1
	smallestPrefix  = 64 // room for the tags and lengths before a body
)

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

// outbound is one answer. Exactly one field is set.
type outbound struct {
	prepared []byte  // encoded once, never changed
	chunk    []byte  // replaces a chunk of the answer; copied when it is sent
	clear    bool    // removes a chunk of the answer
	request  *[]byte // of bodies: replaces the request's body; given back by the transport
	message  *extprocv3.ProcessingResponse
}

// bodies gives the buffers of bodies. gRPC's own pool has nothing between 32 KiB
// and 1 MiB, and Envoy's chunks of a fast answer are 64 KiB and a bit. A buffer
// is cleared whole when it is taken, so a prompt should not get one of twice its size.
var bodies = mem.NewTieredBufferPool(1<<10, 4<<10, 16<<10, 32<<10, 72<<10, 144<<10, 256<<10, 512<<10, 1<<20)

// Codec is the codec that the server of [Register] needs
// ([grpc.ForceServerCodecV2]); all other messages are ordinary protobuf.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(encproto.Name)} }

type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*outbound)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	switch {
	case out.prepared != nil:
		return mem.BufferSlice{mem.SliceBuffer(out.prepared)}, nil
	case out.clear:
		return mem.BufferSlice{mem.SliceBuffer(clearChunk)}, nil
	case out.chunk != nil:
		return mem.BufferSlice{chunkAnswer(out.chunk)}, nil
	case out.request != nil:
		return mem.BufferSlice{mem.SliceBuffer(requestPrefix(*out.request)), mem.NewBuffer(out.request, bodies)}, nil
	}
	return c.CodecV2.Marshal(out.message)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*inbound)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(bodies)
	raw := buffer.ReadOnlyData()
	in.field, in.body, in.end = 0, nil, false
	field, body, err := findBody(raw)
	if err != nil {
		buffer.Free()
		return fmt.Errorf("decode ext_proc message: %w", err)
	}
	if field != 0 {
		// The rest is the metadata, which is known since the headers.
		in.field, in.buffer = field, buffer
		return in.readBody(body)
	}
	defer buffer.Free()
	in.head = head{}
	if err := in.decodeHead(raw); err != nil {
		return fmt.Errorf("decode ext_proc message: %w", err)
	}
	return nil
}

// findBody returns the body in a ProcessingRequest; field 0 when it has none.
// Envoy writes it first; other writers may not.
func findBody(raw []byte) (field int, body []byte, err error) {
	for len(raw) > 0 {
		f, rest, err := wire.Next(raw)
		if err != nil {
			return 0, nil, err
		}
		raw = rest
		if f.Num == inRequestBody || f.Num == inResponseBody {
			return f.Num, f.Bytes, nil
		}
	}
	return 0, nil, nil
}

// chunkAnswer encodes ProcessingResponse{response_body{response{body_mutation{body}}}}
// into a buffer of the pool, which the transport gives back.
func chunkAnswer(body []byte) mem.Buffer {
	inner := bytesField(mutationBody, len(body))
	mutation := bytesField(commonBody, inner)
	common := bytesField(bodyCommon, mutation)
	buf := bodies.Get(bytesField(outResponseBody, common))
	b := (*buf)[:0]
	b = appendHead(b, outResponseBody, common)
	b = appendHead(b, bodyCommon, mutation)
	b = appendHead(b, commonBody, inner)
	b = appendHead(b, mutationBody, len(body))
	b = append(b, body...)
	*buf = b
	return mem.NewBuffer(buf, bodies)
}

// requestPrefix encodes everything before the bytes of a new request body, the
// mended content-length included: without it Envoy answers 500.
func requestPrefix(body []byte) []byte {
	length := contentLengthMutation(len(body))
	inner := bytesField(mutationBody, len(body))
	common := bytesField(commonHeaders, len(length)) + bytesField(commonBody, inner)
	b := make([]byte, 0, smallestPrefix+len(length))
	b = appendHead(b, outRequestBody, bytesField(bodyCommon, common))
	b = appendHead(b, bodyCommon, common)
	b = append(appendHead(b, commonHeaders, len(length)), length...)
	b = appendHead(b, commonBody, inner)
	return appendHead(b, mutationBody, len(body))
}

// bytesField is the size of a field of n bytes, its tag and length included.
func bytesField(num protowire.Number, n int) int {
	return protowire.SizeTag(num) + protowire.SizeBytes(n)
}

func appendHead(b []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(n)) //nolint:gosec // a length
}

// prepare encodes an answer that never differs.
func prepare(m *extprocv3.ProcessingResponse) *outbound {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // a message of ours, built at start
	}
	return &outbound{prepared: b}
}

// Register serves the ext_proc service. The server must use [Codec].
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
