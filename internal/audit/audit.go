// Package audit is the record of what people changed: who, from where, what, and
// how it was before and after. Entries of one gateway are a chain: each holds the
// hash of the one before, so that an entry which was altered, removed or put in
// between is found.
//
// The package holds what an entry is and how the chain is checked. It does no I/O:
// internal/sqlitestore keeps the entries. An entry never holds a secret: keys are
// named by their ids, and a secret by the first digits of its digest.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Who a change is put down to where no key made it.
const (
	// ByFile is an edit of a file by hand, or by another program.
	ByFile = "file"
	// ByGateway is what the gateway did by itself, such as the first key file.
	ByGateway = "gateway"
)

// Editor is who made a change, and from where.
type Editor struct {
	Who  string `json:"who"`  // id of a key, [ByFile], [ByGateway], or "local:NAME" for a person at the command line
	From string `json:"from"` // client address, or "local"
}

// Entry is one change. Its JSON is what the API and the command line show.
type Entry struct {
	Seq     int64     `json:"seq"` // from 1, without gaps, for each gateway
	At      time.Time `json:"at"`
	Gateway string    `json:"gateway"` // the gateway that wrote it
	Editor
	Action string          `json:"action"` // what was done: "key.add", "key.change", "request.cancel"
	Target string          `json:"target"` // what it was done to: the id of a key, of a request, …
	Before json.RawMessage `json:"before"` // null where there was nothing
	After  json.RawMessage `json:"after"`  // null where nothing is left
	Prev   string          `json:"prev"`   // Hash of the entry before, "" for the first
	Hash   string          `json:"hash"`   // of all fields above, in hex
}

// ErrBroken means that the chain does not hold: an entry was altered or is missing.
var ErrBroken = errors.New("the audit chain is broken")

// Seal puts the entry behind the one with that number and hash; 0 and "" for the first.
func (e *Entry) Seal(seq int64, hash string) {
	e.At = e.At.UTC().Truncate(time.Microsecond)
	e.Seq, e.Prev = seq+1, hash
	e.Hash = e.digest()
}

// digest is the hash over all fields but Hash. Each is preceded by its length, so
// that no byte can move from one field into the next.
func (e *Entry) digest() string {
	h := sha256.New()
	var n [8]byte
	number := func(v int64) {
		binary.BigEndian.PutUint64(n[:], uint64(v)) //nolint:gosec // the bits, whatever they mean
		_, _ = h.Write(n[:])
	}
	number(e.Seq)
	number(e.At.UnixMicro())
	for _, field := range [][]byte{
		[]byte(e.Gateway), []byte(e.Who), []byte(e.From), []byte(e.Action), []byte(e.Target), e.Before, e.After, []byte(e.Prev),
	} {
		number(int64(len(field)))
		_, _ = h.Write(field)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Chain checks entries one after the other, in the order of their numbers. Its
// zero value is the beginning of a chain.
type Chain struct {
	// Redacted are the entries in which names were replaced; nil: none.
	Redacted Redactions

	seq  int64
	hash string
}

// Check takes the next entry; [ErrBroken] where it does not follow.
func (c *Chain) Check(e *Entry) error {
	switch {
	case e.Seq != c.seq+1:
		return fmt.Errorf("%w: entry %d follows entry %d", ErrBroken, e.Seq, c.seq)
	case e.Prev != c.hash:
		return fmt.Errorf("%w: entry %d does not follow from the one before", ErrBroken, e.Seq)
	case e.Hash != e.digest() && c.Redacted[e.Seq] != e.digest():
		return fmt.Errorf("%w: entry %d was altered", ErrBroken, e.Seq)
	}
	c.seq, c.hash = e.Seq, e.Hash
	return nil
}

// Len is how many entries were checked.
func (c *Chain) Len() int64 { return c.seq }

// Changes are the entries that lead from one set of things to another, in the
// order of their names: kind.add, kind.change, kind.remove. Of a thing that
// changed only the fields that differ are told. States are JSON objects.
func Changes(kind string, from, to map[string]json.RawMessage) []Entry {
	names := maps.Clone(from)
	if names == nil {
		names = map[string]json.RawMessage{}
	}
	maps.Copy(names, to)
	var out []Entry
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, had := from[name]
		after, has := to[name]
		switch {
		case !had:
			out = append(out, Entry{Action: kind + ".add", Target: name, After: after})
		case !has:
			out = append(out, Entry{Action: kind + ".remove", Target: name, Before: before})
		case !bytes.Equal(before, after):
			b, a := differing(before, after)
			out = append(out, Entry{Action: kind + ".change", Target: name, Before: b, After: a})
		}
	}
	return out
}

// differing are the fields of two objects that differ; the objects themselves
// where they are none.
func differing(before, after json.RawMessage) (b, a json.RawMessage) {
	var from, to map[string]json.RawMessage
	if json.Unmarshal(before, &from) != nil || json.Unmarshal(after, &to) != nil {
		return before, after
	}
	for name, was := range from {
		if is, ok := to[name]; ok && bytes.Equal(was, is) {
			delete(from, name)
			delete(to, name)
		}
	}
	return object(from), object(to)
}

func object(fields map[string]json.RawMessage) json.RawMessage {
	out, err := json.Marshal(fields)
	if err != nil { // raw messages of valid JSON: cannot happen
		return json.RawMessage("{}")
	}
	return out
}
