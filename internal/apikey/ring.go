package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"
)

// Ring is the keys of one reading of the file. It is immutable, so that any
// number of readers share it without a lock. Make one with [Parse].
type Ring struct {
	keys     []*Key
	byID     map[string]*record
	byDigest map[[sha256.Size]byte]grant
	enabled  int
	short    []string // ids of keys whose secret is short, in the order of the file
}

// record is a key with all that identifies it.
type record struct {
	key      *Key
	digest   [sha256.Size]byte
	previous []previous
}

// previous is an old secret during a rotation.
type previous struct {
	digest    [sha256.Size]byte
	expiresAt time.Time
}

// grant is what one secret opens, and until when. The key differs from the
// record's in one case: the public default secret that is being rotated away
// stays marked as the default, its successor is not.
type grant struct {
	digest    [sha256.Size]byte
	key       *Key
	expiresAt time.Time // of the secret; zero = with the key
}

// nobody is the key of every unknown secret: a look-up that finds nothing then takes as
// long as one that finds a disabled key.
var nobody = grant{key: &Key{}}

// newRing takes entries that are known to be unique by id and digest.
func newRing(records []*record) *Ring {
	r := &Ring{
		keys:     make([]*Key, 0, len(records)),
		byID:     make(map[string]*record, len(records)),
		byDigest: make(map[[sha256.Size]byte]grant, len(records)),
	}
	public := Digest(DefaultSecret)
	for _, rec := range records {
		r.keys = append(r.keys, rec.key)
		r.byID[rec.key.ID] = rec
		r.byDigest[rec.digest] = grant{digest: rec.digest, key: rec.key}
		for _, p := range rec.previous {
			key := rec.key
			if p.digest == public {
				marked := *key
				marked.Default = true
				key = &marked
			}
			r.byDigest[p.digest] = grant{digest: p.digest, key: key, expiresAt: p.expiresAt}
		}
		if rec.key.Enabled {
			r.enabled++
		}
	}
	return r
}

// Lookup finds the key that the secret opens at now. It is false for a secret
// that is unknown or expired and for a key that is disabled, expired or not yet
// valid, after the same work. The public default secret opens nothing once a key
// of an ordinary user is good; whether it is honoured before is for the caller to say.
func (r *Ring) Lookup(secret string, now time.Time) (*Key, bool) {
	return r.LookupDigest(Digest(secret), now)
}

// LookupDigest is [Ring.Lookup] for a secret of which only the digest is known.
func (r *Ring) LookupDigest(digest [sha256.Size]byte, now time.Time) (*Key, bool) {
	g, ok := r.byDigest[digest]
	if !ok {
		g = nobody
	}
	k := g.key
	valid := subtle.ConstantTimeCompare(digest[:], g.digest[:])
	valid &= bit(k.Enabled)
	valid &= bit(!now.Before(k.NotBefore))
	valid &= bit(k.ExpiresAt.IsZero()) | bit(now.Before(k.ExpiresAt))
	valid &= bit(g.expiresAt.IsZero()) | bit(now.Before(g.expiresAt))
	if valid != 1 || k.Default && r.hasOrdinary(k.ID, now) {
		return nil, false
	}
	return k, true
}

// hasOrdinary reports whether another key than that of id is good now and belongs to an
// ordinary user. From then on the public default key opens nothing.
func (r *Ring) hasOrdinary(id string, now time.Time) bool {
	return slices.ContainsFunc(r.keys, func(k *Key) bool {
		return k.ID != id && !k.Admin() && !k.Default && k.Enabled && !now.Before(k.NotBefore) && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
	})
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Keys are all keys in the order of the file. The caller must not change them.
func (r *Ring) Keys() []*Key { return slices.Clone(r.keys) }

// ByID finds a key, also a disabled one.
func (r *Ring) ByID(id string) (*Key, bool) {
	rec, ok := r.byID[id]
	if !ok {
		return nil, false
	}
	return rec.key, true
}

// Len is the number of keys.
func (r *Ring) Len() int { return len(r.keys) }

// Enabled is the number of keys that are not disabled, expired ones included.
func (r *Ring) Enabled() int { return r.enabled }

// ListsDefault reports whether the public default key is enabled in the file,
// whether it opens anything or not.
func (r *Ring) ListsDefault() bool {
	return slices.ContainsFunc(r.keys, func(k *Key) bool { return k.Default && k.Enabled })
}

// HasDefault reports whether the public default secret opens a key now.
func (r *Ring) HasDefault() bool {
	_, ok := r.Lookup(DefaultSecret, time.Now())
	return ok
}

// Warnings returns one sentence for each setting of the file that is allowed and
// probably a mistake. Every start repeats them. None contains a secret.
func (r *Ring) Warnings() []string {
	var w []string
	for _, id := range r.short {
		w = append(w, fmt.Sprintf("key %s has a secret of fewer than %d characters, which can be guessed; give it a new one: tollgate keys rotate %s", id, minSecret, id))
	}
	return w
}

// changed counts the keys that were added, removed or altered since old.
func (r *Ring) changed(old *Ring) int {
	n := 0
	for id, rec := range r.byID {
		if before, ok := old.byID[id]; !ok || !rec.equal(before) {
			n++
		}
	}
	return n + old.dropped(r)
}

// dropped counts the keys whose id is not in next.
func (r *Ring) dropped(next *Ring) int {
	n := 0
	for id := range r.byID {
		if _, ok := next.byID[id]; !ok {
			n++
		}
	}
	return n
}

func (r *record) equal(o *record) bool {
	return r.digest == o.digest &&
		slices.EqualFunc(r.previous, o.previous, func(p, q previous) bool {
			return p.digest == q.digest && p.expiresAt.Equal(q.expiresAt)
		}) &&
		sameIdentity(r.key, o.key) && sameLimits(r.key, o.key)
}

func sameIdentity(a, b *Key) bool {
	return a.ID == b.ID && a.User == b.User && a.Enabled == b.Enabled && a.Drain == b.Drain && a.Note == b.Note && a.TrustEndUser == b.TrustEndUser &&
		a.NotBefore.Equal(b.NotBefore) && a.ExpiresAt.Equal(b.ExpiresAt)
}

func sameLimits(a, b *Key) bool {
	return a.Quota == b.Quota && a.QuotaPeriod == b.QuotaPeriod &&
		(a.Models == nil) == (b.Models == nil) && slices.Equal(a.Models, b.Models) &&
		same(a.Concurrent, b.Concurrent) && same(a.RequestsPerMinute, b.RequestsPerMinute) &&
		same(a.TokensPerMinute, b.TokensPerMinute)
}

func same(a, b *int64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
