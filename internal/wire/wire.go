// Package wire reads and writes protobuf messages without building them: Envoy sends
// much that we do not need, and a generated decoder allocates all of it.
package wire

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMalformed means that the bytes are no protobuf message.
var ErrMalformed = errors.New("malformed protobuf message")

// Field is one field of a message. Bytes is a part of what was read.
type Field struct {
	Num    int
	Bytes  []byte // of a length-delimited field (string, bytes, message); nil otherwise
	Varint uint64 // of a varint field; 0 otherwise
}

// next returns the first field of a message and the bytes after it. Fields of
// other wire types have neither Bytes nor Varint. Error: [ErrMalformed].
func next(message []byte) (f Field, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(message)
	if n < 0 {
		return Field{}, nil, ErrMalformed
	}
	rest = message[n:]
	f.Num = int(num)
	switch typ { //nolint:exhaustive // the rest is skipped
	case protowire.BytesType:
		f.Bytes, n = protowire.ConsumeBytes(rest)
	case protowire.VarintType:
		f.Varint, n = protowire.ConsumeVarint(rest)
	default:
		n = protowire.ConsumeFieldValue(num, typ, rest)
	}
	if n < 0 {
		return Field{}, nil, ErrMalformed
	}
	return f, rest[n:], nil
}

// Each calls do for every field of a message, in their order, until do fails. Fields of
// other wire types have neither Bytes nor Varint. Errors: the error of do;
// [ErrMalformed].
func Each(message []byte, do func(Field) error) error {
	for len(message) > 0 {
		f, rest, err := next(message)
		if err != nil {
			return err
		}
		if err := do(f); err != nil {
			return err
		}
		message = rest
	}
	return nil
}

// Find returns the first field of a message that has one of two numbers; Num is 0
// when there is none. It reads no further than that field. Error: [ErrMalformed].
func Find(message []byte, one, other int) (Field, error) {
	for len(message) > 0 {
		f, rest, err := next(message)
		if err != nil {
			return Field{}, err
		}
		if f.Num == one || f.Num == other {
			return f, nil
		}
		message = rest
	}
	return Field{}, nil
}

// Entry reads an entry of a map with string keys: google.protobuf calls the key
// field 1 and the value field 2.
func Entry(entry []byte) (key, value []byte, err error) {
	err = Each(entry, func(f Field) error {
		switch f.Num {
		case entryKey:
			key = f.Bytes
		case entryValue:
			value = f.Bytes
		}
		return nil
	})
	return key, value, err
}

// Strings calls each for every field of a google.protobuf.Struct with the string
// in it, nil where it holds something else.
func Strings(message []byte, each func(name, value []byte)) error {
	return Each(message, func(f Field) error {
		if f.Num != structFields {
			return nil
		}
		name, value, err := Entry(f.Bytes)
		if err != nil {
			return err
		}
		return stringValue(name, value, each)
	})
}

const (
	entryKey     = 1
	entryValue   = 2
	structFields = 1 // google.protobuf.Struct.fields
	valueString  = 3 // google.protobuf.Value.string_value
	valueLast    = 6 // the last of a Value's kinds
)

// stringValue reads a google.protobuf.Value, of whose kinds the last counts.
func stringValue(name, value []byte, each func(name, value []byte)) error {
	var text []byte
	is := false
	err := Each(value, func(f Field) error {
		if f.Num <= valueLast {
			text, is = f.Bytes, f.Num == valueString
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !is {
		text = nil
	}
	each(name, text)
	return nil
}
