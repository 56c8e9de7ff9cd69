// Package secretfile reads a file that holds one secret: the key of an engine, the
// token of a launcher, the password of a store.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

// maxSize bounds such a file, in bytes.
const maxSize = 64 << 10

// ErrForm means that a file does not hold one secret on one line.
var ErrForm = errors.New("must hold one secret on one line")

// Read returns the secret in the file at path, without the white space around it.
// An empty path and an empty file give an empty secret. No error contains any of
// the text: a file with more than one line, with a control character, or of more
// than 64 KiB fails with [ErrForm].
func Read(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path) //nolint:gosec // the configuration names it
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	secret := strings.TrimSpace(string(b))
	if len(b) > maxSize || strings.ContainsFunc(secret, unicode.IsControl) {
		return "", fmt.Errorf("%s %w", path, ErrForm)
	}
	return secret, nil
}
