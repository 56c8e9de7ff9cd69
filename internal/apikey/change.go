package apikey

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Fields are values of an entry as JSON, by their names in the key file.
type Fields map[string]jsontext.Value

// InvalidError says what is wrong with a value; it is an [ErrInvalid].
type InvalidError struct{ Field, Message string }

func (e *InvalidError) Error() string { return e.Field + ": " + e.Message }

// Is makes every one an [ErrInvalid].
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// check refuses what an edit must not set.
func (f Fields) check() error {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if known := fieldNamed(name); known == nil || !known.set {
			return &InvalidError{Field: "key", Message: unknown(name) + "; known: " + fieldNames(func(f *field) bool { return f.set })}
		}
	}
	return nil
}

// Created is a new key. The secret is not stored anywhere: show it once.
type Created struct {
	ID     string `json:"id"`
	Secret string `json:"key"`
}

// NewSecret makes a secret: "sk-" and 32 characters of base62, 190 random bits.
func NewSecret() string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	const length = 32
	out := []byte("sk-")
	var buf [2 * length]byte
	for len(out) < len("sk-")+length {
		_, _ = rand.Read(buf[:]) // never fails, it ends the process instead
		for _, b := range buf {
			// 248 is the largest multiple of 62 in a byte: above it some
			// characters would be more likely.
			if b < 248 && len(out) < len("sk-")+length {
				out = append(out, alphabet[b%62])
			}
		}
	}
	return string(out)
}

// Add makes a key of a new random secret, of which only the digest is stored. It
// is enabled unless the fields say otherwise, and its id is derived from the digest
// unless they name one. Errors: [ErrExists]; [*InvalidError].
func (f *File) Add(fields Fields) (Created, error) {
	sec := NewSecret()
	id, err := f.put(Digest(sec), fields)
	if err != nil {
		return Created{}, fmt.Errorf("add key: %w", err)
	}
	return Created{ID: id, Secret: sec}, nil
}

// Enable lets the key pass again. Errors: [ErrNoKey].
func (f *File) Enable(id string) error {
	return f.change(id, func(e *entry) {
		e.set("enabled", true)
		e.remove("drain")
	})
}

// Disable refuses the key from now on; its live streams are cut. Errors:
// [ErrNoKey].
func (f *File) Disable(id string) error {
	return f.change(id, func(e *entry) {
		e.set("enabled", false)
		e.remove("drain")
	})
}

// Drain refuses the key from now on and lets its live streams finish. Errors:
// [ErrNoKey].
func (f *File) Drain(id string) error {
	return f.change(id, func(e *entry) {
		e.set("enabled", false)
		e.set("drain", true)
	})
}

// Remove forgets the key. Errors: [ErrNoKey].
func (f *File) Remove(id string) error {
	e := f.find(id)
	if e == nil {
		return ErrNoKey
	}
	f.entries = slices.DeleteFunc(f.entries, func(o *entry) bool { return o == e })
	f.edited++
	return nil
}

// MaxGrace bounds how long an old secret may work after a rotation. With a longer time
// there would in fact be two keys, of which one is forgotten.
const MaxGrace = 30 * 24 * time.Hour

// Rotate gives the key a new secret under the same id. The old one stays valid
// for the grace, 0 (not at all) to [MaxGrace]; any other is [ErrInvalid].
// Errors: [ErrNoKey].
func (f *File) Rotate(id string, grace time.Duration) (string, error) {
	if grace < 0 || grace > MaxGrace {
		return "", fmt.Errorf("rotate key: grace %w: it must be between 0s and %v, 30 days", ErrInvalid, MaxGrace)
	}
	sec := NewSecret()
	now := time.Now()
	err := f.change(id, func(e *entry) {
		kept := slices.DeleteFunc(slices.Clone(e.record.previous), func(p previous) bool { return !now.Before(p.expiresAt) })
		if grace > 0 {
			// The file has whole seconds; round up, so that none is lost.
			end := now.Add(grace + time.Second - 1).Truncate(time.Second)
			kept = append(kept, previous{digest: e.record.digest, expiresAt: end})
		}
		digest := Digest(sec)
		e.set("id", id)
		e.replaceSecret(hex.EncodeToString(digest[:]))
		e.setPrevious(kept)
	})
	if err != nil {
		return "", err
	}
	return sec, nil
}

// Update changes the fields that are named. Null takes a bound away: quota, models,
// limits, trust_end_user, not_before, expires_at, note. A limit that limits does not name stays. A
// key that is not disabled does not drain. Errors: [ErrNoKey]; [*InvalidError], then
// nothing was changed.
func (f *File) Update(id string, fields Fields) error {
	err := fields.check()
	if _, named := fields["id"]; err == nil && named {
		err = &InvalidError{Field: "id", Message: "never changes"}
	}
	if err != nil {
		return fmt.Errorf("change key: %w", err)
	}
	return f.change(id, func(e *entry) { e.merge(fields) })
}

// Keys are the keys of the file as it is now, in order.
func (f *File) Keys() []*Key {
	keys := make([]*Key, len(f.entries))
	for i, e := range f.entries {
		keys[i] = e.record.key
	}
	return keys
}

func (f *File) find(id string) *entry {
	for _, e := range f.entries {
		if e.record.key.ID == id {
			return e
		}
	}
	return nil
}

// change applies fn to a copy of the entry and takes it when it is valid.
func (f *File) change(id string, fn func(*entry)) error {
	i := slices.IndexFunc(f.entries, func(e *entry) bool { return e.record.key.ID == id })
	if i < 0 {
		return ErrNoKey
	}
	e := &entry{members: slices.Clone(f.entries[i].members), record: f.entries[i].record}
	fn(e)
	if err := e.check(i + 1); err != nil {
		return fmt.Errorf("change key: %w", err)
	}
	if e.record.equal(&f.entries[i].record) {
		return nil // only the spelling differs
	}
	f.entries[i] = e
	f.edited++
	return nil
}

// check decodes the members again, so that an edit passes what a file passes.
func (e *entry) check(n int) error {
	e.record = record{}
	r := &report{}
	e.decode(r, n, 0)
	if len(r.mistakes) > 0 {
		m := r.mistakes[0]
		return &InvalidError{Field: cmp.Or(m.field, "key"), Message: m.message}
	}
	return nil
}

// set gives a member a value, in place where it exists.
func (e *entry) set(name string, v any) {
	value, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		// The text is not UTF-8. check refuses the value false.
		value = jsontext.Value("false")
	}
	if m := e.member(name); m != nil {
		m.value = value
		return
	}
	e.members = append(e.members, member{name: name, value: value})
}

func (e *entry) remove(name string) {
	e.members = slices.DeleteFunc(e.members, func(m member) bool { return m.name == name })
}

// replaceSecret puts a digest where the secret or its digest was.
func (e *entry) replaceSecret(digest string) {
	if m := e.member("key"); m != nil {
		m.name = "key_sha256"
	}
	e.set("key_sha256", digest)
}

// merge gives the members the values that are named, in the order of the table.
func (e *entry) merge(fields Fields) {
	disabled := e.record.key != nil && !e.record.key.Enabled
	for i := range fieldTable {
		name := fieldTable[i].name
		value, named := fields[name]
		switch {
		case !named:
		case value.Kind() == 'n' && fieldTable[i].bound:
			e.remove(name)
		case value.Kind() == 'n':
		case name == "limits":
			e.mergeLimits(value)
		default:
			e.set(name, value)
		}
	}
	if v := fields["enabled"]; v.Kind() == 't' || v.Kind() == 'f' {
		// A key that changes its state drains only if the fields ask for it.
		if now := v.Kind() == 'f'; now != disabled && fields["drain"] == nil {
			e.remove("drain")
		}
		disabled = v.Kind() == 'f'
	}
	if v := fields["drain"]; !disabled && (v.Kind() == 't' || v.Kind() == 'f') {
		e.remove("drain")
	}
}

// mergeLimits changes the limits that value names and keeps the others.
func (e *entry) mergeLimits(value jsontext.Value) {
	var all, named map[string]jsontext.Value
	if m := e.member("limits"); m != nil {
		_ = json.Unmarshal(m.value, &all) // it was checked when it was read
	}
	if json.Unmarshal(value, &named) != nil || all == nil {
		e.set("limits", value) // check refuses what is no object
		return
	}
	maps.Copy(all, named)
	e.set("limits", all)
}

func (e *entry) setPrevious(list []previous) {
	type item struct {
		KeySHA256 string `json:"key_sha256"`
		ExpiresAt string `json:"expires_at"`
	}
	if len(list) == 0 {
		e.remove("previous")
		return
	}
	items := make([]item, len(list))
	for i, p := range list {
		items[i] = item{hex.EncodeToString(p.digest[:]), p.expiresAt.UTC().Format(time.RFC3339)}
	}
	e.set("previous", items)
}

// marshal writes the array with one entry under the other. Values of entries
// that were not touched are copied as they were.
func (f *File) marshal() ([]byte, error) {
	out := []byte("[")
	for i, e := range f.entries {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '{')
		for j, m := range e.members {
			if j > 0 {
				out = append(out, ',')
			}
			var err error
			if out, err = jsontext.AppendQuote(out, m.name); err != nil {
				return nil, err
			}
			out = append(append(out, ':'), m.value...)
		}
		out = append(out, '}')
	}
	v := jsontext.Value(append(out, ']'))
	if err := v.Format(jsontext.WithIndent("  "), jsontext.PreserveRawStrings(true), jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)); err != nil {
		return nil, err
	}
	return append(v, '\n'), nil
}
