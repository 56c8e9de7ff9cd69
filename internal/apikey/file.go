package apikey

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/strictfile"
)

// MaxFile is the largest key file in bytes.
const MaxFile = 16 << 20

// Parse reads a key file strictly. The name is what problems are reported
// under. All mistakes are reported at once: a non-nil error is a [*FileError]
// and never contains a key.
func Parse(name string, data []byte) (*Ring, error) {
	f, err := parseFile(name, data)
	if err != nil {
		return nil, err
	}
	return f.ring(), nil
}

// File is a key file being edited, see [Edit]. Entries that are not touched
// keep their fields, order and values.
type File struct {
	entries []*entry
	edited  int // changes since it was read
}

// entry is one object of the array: as it is written, and what it means.
type entry struct {
	members []member
	record  record
	short   bool // the secret stands in the file and has fewer than [minSecret] bytes
}

// member is one field as it is written.
type member struct {
	name   string
	value  jsontext.Value
	offset int // of the value in the file
}

func (f *File) ring() *Ring {
	records := make([]*record, len(f.entries))
	for i, e := range f.entries {
		records[i] = &e.record
	}
	r := newRing(records)
	for _, e := range f.entries {
		if e.short {
			r.short = append(r.short, e.record.key.ID)
		}
	}
	return r
}

// parseFile reads the array and checks each entry, and all of them together.
func parseFile(name string, data []byte) (*File, error) {
	text, problem := strictfile.Text(data, MaxFile)
	if problem != nil {
		problem.File = name
		return nil, strictfile.NewError([]strictfile.Problem{*problem})
	}
	r := &report{name: name, data: text}
	if len(bytes.TrimSpace(text)) == 0 {
		r.add(0, mistake{message: "is empty; a file without keys is written []"})
		return nil, r.err()
	}
	f := &File{}
	if !f.read(r) {
		return nil, r.err()
	}
	f.unique(r)
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// read goes through the JSON; false when its grammar is broken.
func (f *File) read(r *report) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(r.data))
	begin, err := dec.ReadToken()
	if err != nil {
		r.syntax(err, 0)
		return false
	}
	if begin.Kind() != '[' {
		r.add(0, mistake{message: `must be a JSON array of keys, as [{"key": "…", "user": "alice"}]`})
		return false
	}
	for n := 1; dec.PeekKind() != ']'; n++ {
		if dec.PeekKind() != '{' {
			v, err := dec.ReadValue()
			if err != nil {
				r.syntax(err, n)
				return false
			}
			r.add(int(dec.InputOffset())-len(v), mistake{entry: n, message: `must be an object, as {"key": "…", "user": "alice"}`})
			continue
		}
		members, offset, err := readMembers(dec)
		if err != nil {
			r.syntax(err, n)
			return false
		}
		e := &entry{members: members}
		e.decode(r, n, offset)
		f.entries = append(f.entries, e)
	}
	if _, err = dec.ReadToken(); err != nil { // the closing bracket
		r.syntax(err, 0)
		return false
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		r.add(int(dec.InputOffset()), mistake{message: "something follows the array; remove it"})
		return false
	}
	return true
}

// readMembers reads an object whose beginning was peeked at.
func readMembers(dec *jsontext.Decoder) (members []member, offset int, err error) {
	if _, err = dec.ReadToken(); err != nil {
		return nil, 0, err
	}
	offset = int(dec.InputOffset()) - 1
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, 0, err
		}
		m := member{name: name.String()}
		value, err := dec.ReadValue()
		if err != nil {
			return nil, 0, err
		}
		m.value, m.offset = value.Clone(), int(dec.InputOffset())-len(value)
		members = append(members, m)
	}
	_, err = dec.ReadToken()
	return members, offset, err
}

// syntax reports broken JSON. It keeps the parser's message only where that quotes
// nothing of the file.
func (r *report) syntax(err error, n int) {
	offset, message := len(r.data), "is not valid JSON"
	var se *jsontext.SyntacticError
	if errors.As(err, &se) {
		offset = int(se.ByteOffset)
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		message = "a field is set twice"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		message, offset = "ends before the array is closed", len(r.data)
	case se != nil && se.Err != nil && !strings.Contains(se.Err.Error(), `"`):
		message = "is not valid JSON: " + se.Err.Error()
	}
	r.add(offset, mistake{entry: n, message: message})
}

// unique refuses ids and secrets that name two identities.
func (f *File) unique(r *report) {
	ids, digests := map[string]int{}, map[[32]byte]int{}
	for i, e := range f.entries {
		n := i + 1
		if first, dup := ids[e.record.key.ID]; dup && e.record.key.ID != "" {
			r.add(e.offset("id"), mistake{entry: n, field: "id", message: fmt.Sprintf("is the id of entry %d too; each key needs its own", first)})
		}
		ids[e.record.key.ID] = n
		secrets := [][32]byte{e.record.digest}
		for _, p := range e.record.previous {
			secrets = append(secrets, p.digest)
		}
		for _, s := range secrets {
			if s == ([32]byte{}) {
				continue // reported as missing
			}
			if first, dup := digests[s]; dup {
				r.add(e.offset("key", "key_sha256"), mistake{entry: n, id: e.record.key.ID, message: fmt.Sprintf("has a secret that entry %d has too", first)})
			}
			digests[s] = n
		}
	}
}

// offset is where the first of the named fields, or else the entry, stands.
func (e *entry) offset(names ...string) int {
	for _, name := range names {
		if m := e.member(name); m != nil {
			return m.offset
		}
	}
	if len(e.members) > 0 {
		return e.members[0].offset
	}
	return 0
}

func (e *entry) member(name string) *member {
	for i := range e.members {
		if e.members[i].name == name {
			return &e.members[i]
		}
	}
	return nil
}

// derivedID names a key by its digest.
func derivedID(digest [32]byte) string { return "key-" + hex.EncodeToString(digest[:6]) }
