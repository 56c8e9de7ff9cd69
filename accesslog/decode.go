package accesslog

import (
	"fmt"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tollgate/internal/rpc"
	"tollgate/internal/ticket"
	"tollgate/internal/wire"
)

// Field numbers of envoy.service.accesslog.v3.StreamAccessLogsMessage and of
// what is in it (envoy.data.accesslog.v3).
const (
	messageHTTP  = 2
	httpLogEntry = 1 // HTTPAccessLogEntries

	entryCommon   = 1 // HTTPAccessLogEntry
	entryRequest  = 3
	entryResponse = 4

	commonClient    = 2 // AccessLogCommon
	commonStart     = 5
	commonFirstByte = 11
	commonLastByte  = 12
	commonFlags     = 16
	commonMetadata  = 17
	commonDuration  = 23
	commonType      = 33

	flagConnectionEnded = 15 // ResponseFlags
	flagReset           = 28

	requestMethod = 1 // HTTPRequestProperties
	requestPath   = 5
	requestID     = 9
	requestBytes  = 12

	responseCode    = 1 // HTTPResponseProperties
	responseBytes   = 3
	responseDetails = 6

	wrappedValue = 1 // google.protobuf.UInt32Value
	timeSeconds  = 1 // google.protobuf.Timestamp, google.protobuf.Duration
	timeNanos    = 2
)

// entry is what matters of an HTTPAccessLogEntry. What it does not say is zero.
type entry struct {
	kind                      int32 // an AccessLogType
	ticket                    ticket.Ticket
	client                    string // its address
	clientEnded, clientReset  bool   // response flags
	started                   moment
	firstByte, last, duration moment // since started

	method          int32 // a RequestMethod
	path, requestID string
	bytesIn         uint64
	status          uint32
	details         string
	bytesOut        uint64
}

// moment is a time or a duration; is tells that there is one.
type moment struct {
	seconds int64
	nanos   int32
	is      bool
}

func (m moment) time() time.Time {
	return (&timestamppb.Timestamp{Seconds: m.seconds, Nanos: m.nanos}).AsTime()
}

func (m moment) duration() time.Duration {
	return (&durationpb.Duration{Seconds: m.seconds, Nanos: m.nanos}).AsDuration()
}

// batch is one message of the log.
type batch struct{ entries []entry }

// Decode implements [rpc.Decoder]: the entries of the message replace those of
// the one before.
func (b *batch) Decode(data mem.BufferSlice) error {
	buffer := data.MaterializeToBuffer(rpc.Buffers)
	defer buffer.Free()
	b.entries = b.entries[:0]
	err := wire.Each(buffer.ReadOnlyData(), func(f wire.Field) error {
		if f.Num != messageHTTP {
			return nil
		}
		return wire.Each(f.Bytes, b.add)
	})
	if err != nil {
		return fmt.Errorf("decode access log: %w", err)
	}
	return nil
}

// add reads a field of HTTPAccessLogEntries.
func (b *batch) add(f wire.Field) error {
	if f.Num != httpLogEntry {
		return nil
	}
	b.entries = append(b.entries, entry{})
	e := &b.entries[len(b.entries)-1]
	return wire.Each(f.Bytes, func(f wire.Field) error {
		switch f.Num {
		case entryCommon:
			return wire.Each(f.Bytes, e.common)
		case entryRequest:
			return wire.Each(f.Bytes, e.request)
		case entryResponse:
			return wire.Each(f.Bytes, e.response)
		}
		return nil
	})
}

func (e *entry) common(f wire.Field) (err error) {
	switch f.Num {
	case commonClient:
		var host []byte
		host, err = wire.SocketAddress(f.Bytes)
		e.client = string(host)
	case commonStart:
		return e.started.read(f.Bytes)
	case commonFirstByte:
		return e.firstByte.read(f.Bytes)
	case commonLastByte:
		return e.last.read(f.Bytes)
	case commonDuration:
		return e.duration.read(f.Bytes)
	case commonFlags:
		return wire.Each(f.Bytes, e.flag)
	case commonMetadata:
		e.ticket, err = ticket.Decode(f.Bytes)
	case commonType:
		e.kind = int32(f.Varint) //nolint:gosec // an enum, as the generated code reads it
	}
	return err
}

func (e *entry) flag(f wire.Field) error {
	switch f.Num {
	case flagConnectionEnded:
		e.clientEnded = f.Varint != 0
	case flagReset:
		e.clientReset = f.Varint != 0
	}
	return nil
}

func (e *entry) request(f wire.Field) error {
	switch f.Num {
	case requestMethod:
		e.method = int32(f.Varint) //nolint:gosec // an enum, as the generated code reads it
	case requestPath:
		e.path = string(f.Bytes)
	case requestID:
		e.requestID = string(f.Bytes)
	case requestBytes:
		e.bytesIn = f.Varint
	}
	return nil
}

func (e *entry) response(f wire.Field) error {
	switch f.Num {
	case responseCode:
		return wire.Each(f.Bytes, func(f wire.Field) error {
			if f.Num == wrappedValue {
				e.status = uint32(f.Varint) //nolint:gosec // as the generated code reads it
			}
			return nil
		})
	case responseBytes:
		e.bytesOut = f.Varint
	case responseDetails:
		e.details = string(f.Bytes)
	}
	return nil
}

func (m *moment) read(message []byte) error {
	m.is = true
	return wire.Each(message, func(f wire.Field) error {
		switch f.Num {
		case timeSeconds:
			m.seconds = int64(f.Varint) //nolint:gosec // two's complement, as protobuf has it
		case timeNanos:
			m.nanos = int32(f.Varint) //nolint:gosec // two's complement, as protobuf has it
		}
		return nil
	})
}
