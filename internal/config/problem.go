package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one mistake in a configuration file. It never carries a secret:
// values are quoted only where they cannot be one.
type Problem struct {
	File string
	// Line and Column count from 1; 0 means that the whole file is at fault.
	Line, Column int
	// Key is the path of the value, as "rate_limit.qps" or "vllm.args[2]"; empty
	// where the mistake belongs to no key.
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
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if p.Suggestion != "" {
		b.WriteString("; ")
		b.WriteString(p.Suggestion)
	}
	return b.String()
}

// Error holds every mistake of one file, in the order of its lines.
type Error struct {
	Problems []Problem
	cause    error
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

func (e *Error) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}

// show quotes a value of the file for a message. What might be a secret is not
// shown, and long or unprintable text is cut and escaped.
func show(key, value string) string {
	const longest = 40
	if hidden(key) || looksSecret(value) {
		return "a value that is not shown"
	}
	if len(value) > longest {
		return strconv.QuoteToASCII(value[:longest]) + "…"
	}
	return strconv.QuoteToASCII(value)
}

// hidden reports whether values under the key may be secrets.
func hidden(key string) bool {
	for _, p := range []string{"vllm.extra_env", "vllm.args"} {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	// Somebody may put the secret itself where its file belongs.
	return strings.HasSuffix(key, "_file")
}

// looksSecret reports whether text looks like a key or a token: the prefixes
// that are common, or a long run without a separator.
func looksSecret(s string) bool {
	for _, p := range []string{"sk-", "hf_", "Bearer "} {
		if strings.Contains(s, p) {
			return true
		}
	}
	return len(s) >= 32 && !strings.ContainsAny(s, " /.:_-")
}
