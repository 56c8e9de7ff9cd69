package secretfile

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

// LineError says which line of a file is no header. It has nothing of the line's text.
type LineError struct{ Line int }

func (e *LineError) Error() string { return fmt.Sprintf("line %d", e.Line) }

// Headers reads a file of headers, one "name: value" a line; empty lines and lines that
// begin with # are passed over. An empty path gives none. Names are in lower case. No
// error contains any of the text: a line that is no header fails with a [*LineError], a
// file of more than 64 KiB with [ErrForm].
func Headers(path string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path) //nolint:gosec // the configuration names it
	if err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("%s %w", path, ErrForm)
	}
	headers := map[string]string{}
	number := 0
	for line := range strings.Lines(string(b)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !ok || !token(name) || value == "" || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, &LineError{Line: number}
		}
		headers[name] = value
	}
	return headers, nil
}

// token reports whether a text can be the name of a header.
func token(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}
