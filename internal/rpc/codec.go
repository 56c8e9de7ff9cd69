package rpc

import (
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Decoder is a message that reads itself. It must copy the parts of data that it keeps,
// or hold them with Ref.
type Decoder interface {
	Decode(data mem.BufferSlice) error
}

// Encoder is a message that writes itself. The transport frees the buffers.
type Encoder interface {
	Encode() (mem.BufferSlice, error)
}

// codec lets a [Decoder] and an [Encoder] read and write themselves; all other messages
// are ordinary protobuf.
type codec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(encproto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(Encoder); ok {
		return m.Encode()
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(Decoder); ok {
		return m.Decode(data)
	}
	return c.CodecV2.Unmarshal(data, v)
}
