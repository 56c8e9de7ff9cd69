package apikey

import (
	"encoding/hex"
	"encoding/json"
	"time"
)

// secretDigits is how many hex digits of its digest name a secret in the audit: enough
// to tell two secrets of one key apart, and of no use to whoever looks for one.
const secretDigits = 8

// state is a key as the audit tells it.
type state struct {
	Info
	Secret   string      `json:"secret"` // the first digits of the digest
	Previous []oldSecret `json:"previous,omitzero"`
}

// oldSecret is an old secret during a rotation.
type oldSecret struct {
	Secret    string    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at"`
}

// States are all keys by id, as JSON objects for the audit: what the file says of
// each, and of its secrets the first digits of their digests.
func (r *Ring) States() map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(r.byID))
	for id, rec := range r.byID {
		s := state{Info: rec.key.Info(), Secret: digits(rec.digest[:])}
		for _, p := range rec.previous {
			s.Previous = append(s.Previous, oldSecret{Secret: digits(p.digest[:]), ExpiresAt: p.expiresAt.UTC()})
		}
		raw, err := json.Marshal(s)
		if err != nil { // only a type of ours that cannot be JSON
			raw = json.RawMessage(`{}`)
		}
		out[id] = raw
	}
	return out
}

func digits(digest []byte) string { return hex.EncodeToString(digest)[:secretDigits] }
