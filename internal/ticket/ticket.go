// Package ticket reads and writes a ticket: the dynamic metadata in which a lease
// travels inside Envoy. ext_authz sets it, ext_proc receives it with every message, and
// the access log carries it. It holds the lease id and the key id in clear, which are
// no secrets, and for other replicas one sealed field with the facts that a claim needs
// (see [Sealer]).
package ticket

import "tollgate/internal/wire"

// Namespace is where Envoy keeps the dynamic metadata of ext_authz: the name
// of the filter in envoy.yaml.
const Namespace = "envoy.filters.http.ext_authz"

// The fields of the metadata.
const (
	lease = "lease"
	key   = "key"
	// reason is set on a refusal, for the access log.
	reason = "reason"
	issuer = "issuer"
	facts  = "facts"
	trace  = "trace"
)

// Ticket is the content of the metadata. A field that the metadata lacks is empty.
type Ticket struct {
	LeaseID, KeyID, Reason string
	Issuer                 string // names the process that issued it
	Facts                  string // sealed; "" where there are no other replicas
	Trace                  string // identity of the request's span; "" where it is not traced
}

// Append appends the metadata of a ticket, an encoded google.protobuf.Struct; it
// appends nothing for an empty ticket.
func (t Ticket) Append(b []byte) []byte {
	for _, f := range []struct{ name, value string }{{lease, t.LeaseID}, {key, t.KeyID}, {reason, t.Reason}, {issuer, t.Issuer}, {facts, t.Facts}, {trace, t.Trace}} {
		if f.value != "" {
			b = wire.AppendText(b, f.name, f.value)
		}
	}
	return b
}

// filterMetadata is the field of envoy.config.core.v3.Metadata that [Decode] reads.
const filterMetadata = 1

// Decode finds the ticket in an encoded envoy.config.core.v3.Metadata: that of a
// message or a log entry. Error: [wire.ErrMalformed].
func Decode(metadata []byte) (Ticket, error) {
	var t Ticket
	err := wire.Each(metadata, func(f wire.Field) error {
		if f.Num != filterMetadata {
			return nil
		}
		name, fields, err := wire.Entry(f.Bytes)
		if err != nil || string(name) != Namespace {
			return err
		}
		t = Ticket{} // where a name stands twice, the last entry counts
		return wire.Strings(fields, t.set)
	})
	return t, err
}

func (t *Ticket) set(name, value []byte) {
	switch string(name) {
	case lease:
		t.LeaseID = string(value)
	case key:
		t.KeyID = string(value)
	case reason:
		t.Reason = string(value)
	case issuer:
		t.Issuer = string(value)
	case facts:
		t.Facts = string(value)
	case trace:
		t.Trace = string(value)
	}
}
