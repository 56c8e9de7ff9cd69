package apikey

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one mistake in a key file. It never carries a value of the file,
// because any of them may be a secret.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0 means the whole file
	Entry        int    // from 1; 0 means none
	ID           string // of the entry, where it is written and valid
	Field        string // as "limits.concurrent"
	Message      string
}

// String is the problem on one line: FILE:LINE:COLUMN: entry N (ID): FIELD: MESSAGE.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if p.Entry > 0 {
		fmt.Fprintf(&b, ": entry %d", p.Entry)
		if p.ID != "" {
			fmt.Fprintf(&b, " (%s)", p.ID)
		}
	}
	if p.Field != "" {
		b.WriteString(": " + p.Field)
	}
	return b.String() + ": " + p.Message
}

// FileError holds every mistake of a key file in the order of its lines.
type FileError struct {
	Problems []Problem
	cause    error
}

// Error has one line per problem.
func (e *FileError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap is the error of the file system where there is one.
func (e *FileError) Unwrap() error { return e.cause }

// report collects problems by byte offset.
type report struct {
	name     string
	data     []byte
	problems []Problem
}

// add notes a problem at an offset; below 0 the whole file is at fault.
func (r *report) add(offset int, p Problem) {
	p.File = r.name
	if offset >= 0 {
		before := r.data[:min(offset, len(r.data))]
		start := bytes.LastIndexByte(before, '\n') + 1
		p.Line = bytes.Count(before, []byte("\n")) + 1
		p.Column = utf8.RuneCount(before[start:]) + 1
	}
	r.problems = append(r.problems, p)
}

func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return &FileError{Problems: r.problems}
}
