package apikey

import (
	"fmt"

	"tollgate/internal/strictfile"
)

// FileError holds every mistake of a key file in the order of its lines. It never
// carries a value of the file, because any of them may be a secret.
type FileError = strictfile.Error

// mistake is what is wrong with an entry.
type mistake struct {
	entry   int    // from 1; 0 means none
	id      string // of the entry, where it is written and valid
	field   string // as "limits.concurrent"
	message string
}

// key names the value at fault: "entry N (ID): FIELD".
func (m *mistake) key() string {
	if m.entry == 0 {
		return m.field
	}
	key := fmt.Sprintf("entry %d", m.entry)
	if m.id != "" {
		key += " (" + m.id + ")"
	}
	if m.field != "" {
		key += ": " + m.field
	}
	return key
}

// report collects mistakes by their byte offset.
type report struct {
	name     string
	data     []byte
	mistakes []mistake
	problems []strictfile.Problem
}

func (r *report) add(offset int, m mistake) {
	r.mistakes = append(r.mistakes, m)
	r.problems = append(r.problems, strictfile.Problem{
		File: r.name, Position: strictfile.At(r.data, offset), Key: m.key(), Message: m.message,
	})
}

func (r *report) err() error { return strictfile.NewError(r.problems) }
