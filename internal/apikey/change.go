package apikey

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/limit"
)

// Limits of one key; nil leaves the global limit in force, a pointer to
// [limit.Unlimited] lifts it.
type Limits struct {
	Concurrent, RequestsPerMinute, TokensPerMinute *int64
}

// Spec describes a key to add.
type Spec struct {
	ID          string // empty: derived from the digest
	User        string
	Quota       *int64 // tokens; nil or [limit.Unlimited] = unlimited
	QuotaPeriod Period // empty: [Total]
	Disabled    bool
	Models      []string // nil = all
	Limits      Limits
	NotBefore   time.Time // zero = no bound
	ExpiresAt   time.Time // zero = no bound
	Note        string
}

// Patch names what to change of a key; what is nil stays.
type Patch struct {
	User        *string
	Quota       *int64 // [limit.Unlimited] removes it
	QuotaPeriod *Period
	Enabled     *bool
	Models      *[]string // pointer to nil = all
	Limits      *Limits   // replaces all of them
	NotBefore   *time.Time
	ExpiresAt   *time.Time // zero removes it
	Note        *string
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

// Add makes a key of a new random secret, of which only the digest is stored.
// Errors: [ErrExists]; [ErrInvalid] with what is wrong.
func (f *File) Add(s Spec) (Created, error) {
	sec := NewSecret()
	digest := Digest(sec)
	if s.ID == "" {
		s.ID = derivedID(digest)
	}
	if f.find(s.ID) != nil {
		return Created{}, fmt.Errorf("add key: %w", ErrExists)
	}
	e := &entry{}
	e.set("id", s.ID)
	e.set("key_sha256", hex.EncodeToString(digest[:]))
	e.set("user", s.User)
	e.set("enabled", !s.Disabled)
	if s.Quota != nil && *s.Quota != limit.Unlimited {
		e.set("quota", *s.Quota)
	}
	if s.QuotaPeriod != "" && s.QuotaPeriod != Total {
		e.set("quota_period", string(s.QuotaPeriod))
	}
	if s.Models != nil {
		e.set("models", s.Models)
	}
	e.setLimits(s.Limits)
	e.setTime("not_before", s.NotBefore)
	e.setTime("expires_at", s.ExpiresAt)
	if s.Note != "" {
		e.set("note", s.Note)
	}
	if err := e.check(len(f.entries) + 1); err != nil {
		return Created{}, fmt.Errorf("add key: %w", err)
	}
	f.entries = append(f.entries, e)
	f.edited++
	return Created{ID: s.ID, Secret: sec}, nil
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

// MaxGrace is how long an old secret may outlive its rotation: longer ones are
// two keys in fact, of which one is forgotten.
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

// Update changes what the patch names. Errors: [ErrNoKey]; [ErrInvalid] with
// what is wrong, then nothing was changed.
func (f *File) Update(id string, p Patch) error {
	return f.change(id, func(e *entry) {
		if p.User != nil {
			e.set("user", *p.User)
		}
		if p.Quota != nil {
			if *p.Quota == limit.Unlimited {
				e.remove("quota")
			} else {
				e.set("quota", *p.Quota)
			}
		}
		if p.QuotaPeriod != nil {
			e.set("quota_period", string(*p.QuotaPeriod))
		}
		if p.Enabled != nil && *p.Enabled != e.record.key.Enabled {
			e.set("enabled", *p.Enabled)
			e.remove("drain")
		}
		if p.Models != nil {
			e.setModels(*p.Models)
		}
		if p.Limits != nil {
			e.setLimits(*p.Limits)
		}
		if p.NotBefore != nil {
			e.setTime("not_before", *p.NotBefore)
		}
		if p.ExpiresAt != nil {
			e.setTime("expires_at", *p.ExpiresAt)
		}
		if p.Note != nil {
			e.set("note", *p.Note)
		}
	})
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
		return nil // says the same in other words
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
	if len(r.problems) > 0 {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, r.problems[0].Field, r.problems[0].Message)
	}
	return nil
}

// set gives a member a value, in place where it exists.
func (e *entry) set(name string, v any) {
	value, err := json.Marshal(v)
	if err != nil {
		// Text that is not UTF-8; check refuses what stands in its place.
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

func (e *entry) setModels(models []string) {
	if models == nil {
		e.remove("models")
		return
	}
	e.set("models", models)
}

func (e *entry) setTime(name string, t time.Time) {
	if t.IsZero() {
		e.remove(name)
		return
	}
	e.set(name, t.UTC().Format(time.RFC3339Nano))
}

func (e *entry) setLimits(l Limits) {
	type limits struct {
		Concurrent        *jsontext.Value `json:"concurrent,omitzero"`
		RequestsPerMinute *jsontext.Value `json:"requests_per_minute,omitzero"`
		TokensPerMinute   *jsontext.Value `json:"tokens_per_minute,omitzero"`
	}
	raw := func(n *int64) *jsontext.Value {
		if n == nil {
			return nil
		}
		v := jsontext.Value("null")
		if *n != limit.Unlimited {
			v = jsontext.Value(fmt.Sprint(*n))
		}
		return &v
	}
	if l == (Limits{}) {
		e.remove("limits")
		return
	}
	e.set("limits", limits{raw(l.Concurrent), raw(l.RequestsPerMinute), raw(l.TokensPerMinute)})
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
