package apikey

import (
	"encoding/hex"
	"fmt"
	"slices"
)

// Adopt adds a key of another gateway under the digest that is known of its secret, so
// that clients keep the secret. The rest is as in [File.Add]. Errors: [ErrExists] also
// where a key has this secret; [*InvalidError].
func (f *File) Adopt(digest [32]byte, fields Fields) (id string, err error) {
	if id, err = f.put(digest, fields); err != nil {
		return "", fmt.Errorf("adopt key: %w", err)
	}
	return id, nil
}

// put adds an entry.
func (f *File) put(digest [32]byte, fields Fields) (id string, err error) {
	e := &entry{}
	e.set("id", derivedID(digest))
	e.set("key_sha256", hex.EncodeToString(digest[:]))
	e.set("user", "")
	e.set("enabled", true)
	if err = fields.check(); err == nil {
		e.merge(fields)
		err = e.check(len(f.entries) + 1)
	}
	if err != nil {
		return "", err
	}
	id = e.record.key.ID
	if f.find(id) != nil || f.Knows(digest) {
		return "", ErrExists
	}
	f.entries = append(f.entries, e)
	f.edited++
	return id, nil
}

// Knows reports whether a key has this secret, or had it before a rotation.
func (f *File) Knows(digest [32]byte) bool {
	return slices.ContainsFunc(f.entries, func(e *entry) bool {
		return e.record.digest == digest || slices.ContainsFunc(e.record.previous, func(p previous) bool { return p.digest == digest })
	})
}

// Has reports whether a key has this id.
func (f *File) Has(id string) bool { return f.find(id) != nil }
