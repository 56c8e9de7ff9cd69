package wire

import "google.golang.org/protobuf/encoding/protowire"

// number is the number of a field, always a constant of this program.
func number(num int) protowire.Number { return protowire.Number(num) } //nolint:gosec // up to 2²⁹

// SizeBytes is the size of a length-delimited field whose value has n bytes, tag
// and length included.
func SizeBytes(num, n int) int {
	return protowire.SizeTag(number(num)) + protowire.SizeBytes(n)
}

// AppendHead appends the tag and the length of a length-delimited field whose
// value has n bytes; the value follows.
func AppendHead(b []byte, num, n int) []byte {
	b = protowire.AppendTag(b, number(num), protowire.BytesType)
	return protowire.AppendVarint(b, uint64(n)) //nolint:gosec // a length
}

// AppendString appends a string field.
func AppendString(b []byte, num int, s string) []byte {
	return append(AppendHead(b, num, len(s)), s...)
}

// AppendVarint appends a varint field (bool, enum, integer).
func AppendVarint(b []byte, num int, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number(num), protowire.VarintType), v)
}

// AppendText appends a field of a google.protobuf.Struct: a name and a string.
func AppendText(b []byte, name, value string) []byte {
	text := SizeBytes(valueString, len(value))
	b = AppendHead(b, structFields, SizeBytes(entryKey, len(name))+SizeBytes(entryValue, text))
	b = AppendString(b, entryKey, name)
	return AppendString(AppendHead(b, entryValue, text), valueString, value)
}
