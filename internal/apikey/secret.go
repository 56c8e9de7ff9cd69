package apikey

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// SecretID is the beginning of the digest of a secret. It distinguishes the two secrets
// of a key during a rotation, and opens nothing. The zero value belongs to no secret:
// rows of older programs do not record the secret.
type SecretID [4]byte

// SecretIDOf is the id of the secret with that digest.
func SecretIDOf(digest [sha256.Size]byte) SecretID { return SecretID(digest[:4]) }

// ParseSecretID reads what [SecretID.String] wrote; zero when it is none.
func ParseSecretID(text string) (id SecretID) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) {
		return SecretID{}
	}
	return SecretID(b)
}

// String is eight hex digits, "" for the zero value.
func (id SecretID) String() string {
	if id == (SecretID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// Holds reports whether requests of the key with that id, opened by that secret, may go
// on at now, and until when as things stand: zero is without end. They may go on while
// the secret opens the key, and after the key was disabled if it drains ([Key.Drain]).
// With the zero secret they may go on while any secret of the key opens it.
func (r *Ring) Holds(id string, secret SecretID, now time.Time) (until time.Time, ok bool) {
	rec, known := r.byID[id]
	if !known {
		return time.Time{}, false
	}
	until, ok = r.holds(rec.digest, secret, now)
	for i := 0; !ok && i < len(rec.previous); i++ {
		until, ok = r.holds(rec.previous[i].digest, secret, now)
	}
	return until, ok
}

// holds is [Ring.Holds] for one digest of the key; it is false for a digest of another
// secret.
func (r *Ring) holds(digest [sha256.Size]byte, secret SecretID, now time.Time) (until time.Time, ok bool) {
	g := r.byDigest[digest]
	if secret != (SecretID{}) && SecretIDOf(digest) != secret || !g.key.Enabled && !g.key.Drain {
		return time.Time{}, false
	}
	until = g.key.ExpiresAt
	if until.IsZero() || !g.expiresAt.IsZero() && g.expiresAt.Before(until) {
		until = g.expiresAt
	}
	return until, until.IsZero() || now.Before(until)
}
