// Package ticket is how a lease travels inside Envoy: in the dynamic metadata
// that ext_authz sets, ext_proc gets with every message and the access log
// carries. It holds the lease id and the key id in clear, which are no secrets, and
// for other replicas one sealed field with the facts that a claim needs (see
// [Sealer]).
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
)

// Ticket is what the metadata says; fields are empty where it says nothing.
type Ticket struct {
	LeaseID, KeyID, Reason string
	Issuer                 string // names the process that issued it
	Facts                  string // sealed; "" where there are no other replicas
}

// Append appends the metadata of a ticket, an encoded google.protobuf.Struct;
// nothing when there is nothing to say.
func (t Ticket) Append(b []byte) []byte {
	for _, f := range []struct{ name, value string }{{lease, t.LeaseID}, {key, t.KeyID}, {reason, t.Reason}, {issuer, t.Issuer}, {facts, t.Facts}} {
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
		t = Ticket{} // of two entries with one name the last counts
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
	}
}
