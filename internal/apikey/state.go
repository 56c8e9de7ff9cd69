package apikey

import (
	"encoding/hex"
	"encoding/json"
	"time"
)

// secretDigits is how many hex digits of its digest name a secret in the audit: enough
// to distinguish two secrets of one key, too few to find a secret.
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

// States returns all keys by id as JSON objects for the audit: the fields of each key,
// and the first digits of the digests of its secrets.
func (r *Ring) States() map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(r.byID))
	for id, rec := range r.byID {
		s := state{Info: rec.key.Info(), Secret: digits(rec.digest[:])}
		for _, p := range rec.previous {
			s.Previous = append(s.Previous, oldSecret{Secret: digits(p.digest[:]), ExpiresAt: p.expiresAt.UTC()})
		}
		raw, err := json.Marshal(s) //nolint:gosec // the first digits of a digest, see secretDigits
		if err != nil {             // cannot happen: the type always encodes
			raw = json.RawMessage(`{}`)
		}
		out[id] = raw
	}
	return out
}

func digits(digest []byte) string { return hex.EncodeToString(digest)[:secretDigits] }
