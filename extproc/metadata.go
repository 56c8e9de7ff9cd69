package extproc

import (
	"slices"

	"tollgate/internal/wire"
)

// Dynamic metadata, by which tollgate speaks with other filters of a request:
// what comes with every message, and what may go with every answer.

const (
	// meterSaid is where the meter inside Envoy says its name (meterInstance): it has
	// registered the request, and waits to be told in meterTold what to do.
	meterSaid     = "tollgate.meter.by"
	meterInstance = "instance"
	meterTold     = "tollgate.meter"
	// extprocHas is the plan that keeps the meter's hands off the answer.
	extprocHas = "0"
)

const (
	filterMetadata = 1 // envoy.config.core.v3.Metadata
	outDynamic     = 8 // of ProcessingResponse: a google.protobuf.Struct
	structFields   = 1
	entryKey       = 1
	entryValue     = 2
	valueStruct    = 5
)

// field is one string of a namespace.
type field struct{ name, value string }

// appendMetadata appends what another filter is told, for an answer of any kind. It
// may be called again for another namespace.
func appendMetadata(b []byte, namespace string, fields ...field) []byte {
	var room [256]byte // enough for the usual
	inner := room[:0]
	for _, f := range fields {
		inner = wire.AppendText(inner, f.name, f.value)
	}
	value := wire.SizeBytes(valueStruct, len(inner))
	entry := wire.SizeBytes(entryKey, len(namespace)) + wire.SizeBytes(entryValue, value)
	b = slices.Grow(b, wire.SizeBytes(outDynamic, wire.SizeBytes(structFields, entry)))
	b = wire.AppendHead(b, outDynamic, wire.SizeBytes(structFields, entry))
	b = wire.AppendHead(b, structFields, entry)
	b = wire.AppendString(b, entryKey, namespace)
	b = wire.AppendHead(b, entryValue, value)
	return append(wire.AppendHead(b, valueStruct, len(inner)), inner...)
}

// meterOf finds in the metadata of a message which meter has registered the request;
// "" where none has.
func meterOf(metadata []byte) (instance string, err error) {
	err = wire.Each(metadata, func(f wire.Field) error {
		if f.Num != filterMetadata {
			return nil
		}
		name, fields, err := wire.Entry(f.Bytes)
		if err != nil || string(name) != meterSaid {
			return err
		}
		return wire.Strings(fields, func(name, value []byte) {
			if string(name) == meterInstance {
				instance = string(value)
			}
		})
	})
	return instance, err
}
