// Package strictfile reads and creates the files that people write: the
// configuration and the keys. It knows nothing of what is in them. It reads a file
// safely, checks that it is text, and reports mistakes with their positions.
package strictfile

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Position is a place in a file, counted from 1 in lines and in characters. The
// zero value means the whole file.
type Position struct{ Line, Column int }

// At is the position of a byte offset. An offset behind the end is the end.
func At(data []byte, offset int) Position {
	before := data[:min(max(offset, 0), len(data))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return Position{Line: bytes.Count(before, []byte("\n")) + 1, Column: utf8.RuneCount(before[start:]) + 1}
}

// Problem is one mistake in a file. It must not hold a secret: quote a value only
// where it cannot be one.
type Problem struct {
	File string
	Position
	// Key names the value at fault, as "rate_limit.qps" or "entry 2 (ann): quota". It
	// is empty where the mistake belongs to no value.
	Key string
	// Message says what is wrong, Suggestion what would be right (may be empty).
	Message, Suggestion string
}

// String is the problem on one line: FILE:LINE:COLUMN: KEY: MESSAGE; SUGGESTION.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	if p.Suggestion != "" {
		b.WriteString("; " + p.Suggestion)
	}
	return b.String()
}

// Error holds every mistake of one file, in the order of their positions.
type Error struct {
	Problems []Problem
	cause    error
}

// NewError sorts the problems; nil when there are none.
func NewError(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return &Error{Problems: problems}
}

// Fail is an [*Error] of one problem with the whole file. The cause may be nil.
func Fail(file, message, suggestion string, cause error) error {
	return &Error{Problems: []Problem{{File: file, Message: message, Suggestion: suggestion}}, cause: cause}
}

// Error has one line per problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap is the error of the file system where there is one, as
// [fs.ErrNotExist].
func (e *Error) Unwrap() error { return e.cause }
