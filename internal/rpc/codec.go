package rpc

import (
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Decoder is a message that reads itself. What it keeps of data it must hold
// with Ref, or copy.
type Decoder interface {
	Decode(data mem.BufferSlice) error
}

// Encoder is a message that writes itself. The transport frees the buffers.
type Encoder interface {
	Encode() (mem.BufferSlice, error)
}

// codec lets messages of ours read and write themselves; all others are
// ordinary protobuf.
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
