package ticket

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

var (
	// ErrForeign says that a sealed text was made with a key that is not known here.
	ErrForeign = errors.New("ticket is sealed with an unknown key")
	// ErrForged says that a sealed text is not what its key has sealed.
	ErrForged = errors.New("ticket is damaged or forged")
)

const (
	keyBytes = 32 // AES-256
	nameText = 8  // characters of a key's name
	purpose  = "tollgate ticket 1"
)

// NewKey makes a key: its name, a dot and its secret in hex. The text is a secret.
func NewKey() string {
	var secret [keyBytes]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand aborts the program instead)
	return strings.ToLower(rand.Text()[:nameText]) + "." + hex.EncodeToString(secret[:])
}

// Sealer seals facts about a ticket for other processes that have the same keys.
// The zero value has none: it seals nothing and opens nothing. Its methods are
// safe for concurrent use.
type Sealer struct {
	keys atomic.Pointer[[]sealKey]
}

type sealKey struct {
	name, text string
	aead       cipher.AEAD
}

// Use takes keys as [NewKey] writes them; the first seals, all open. On an error
// the keys stay as they were.
func (s *Sealer) Use(keys []string) error {
	all := make([]sealKey, 0, len(keys))
	for _, text := range keys {
		name, secret, _ := strings.Cut(text, ".")
		raw, err := hex.DecodeString(secret)
		if err != nil || len(raw) != keyBytes || len(name) != nameText {
			return errors.New("use ticket key: it is not one") // never with the text
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return fmt.Errorf("use ticket key: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return fmt.Errorf("use ticket key: %w", err)
		}
		all = append(all, sealKey{name, text, aead})
	}
	s.keys.Store(&all)
	return nil
}

// Current returns the key that seals; "" when there is none.
func (s *Sealer) Current() string {
	if keys := s.keys.Load(); keys != nil && len(*keys) > 0 {
		return (*keys)[0].text
	}
	return ""
}

// Seal returns facts in a form that only a process with the same key can read or
// make; "" when there is no key.
func (s *Sealer) Seal(facts []byte) string {
	keys := s.keys.Load()
	if keys == nil || len(*keys) == 0 {
		return ""
	}
	k := &(*keys)[0]
	n := k.aead.NonceSize()
	sealed := make([]byte, n, n+len(facts)+k.aead.Overhead())
	_, _ = rand.Read(sealed)
	sealed = k.aead.Seal(sealed, sealed, facts, []byte(purpose))
	return k.name + base64.RawStdEncoding.EncodeToString(sealed)
}

// Open returns what was sealed. Errors: [ErrForeign], [ErrForged].
func (s *Sealer) Open(text string) ([]byte, error) {
	if len(text) < nameText {
		return nil, ErrForged
	}
	name, body := text[:nameText], text[nameText:]
	keys := s.keys.Load()
	if keys == nil {
		return nil, ErrForeign
	}
	for i := range *keys {
		k := &(*keys)[i]
		if k.name != name {
			continue
		}
		sealed, err := base64.RawStdEncoding.Strict().DecodeString(body)
		n := k.aead.NonceSize()
		if err != nil || len(sealed) < n {
			return nil, ErrForged
		}
		facts, err := k.aead.Open(nil, sealed[:n], sealed[n:], []byte(purpose))
		if err != nil {
			return nil, ErrForged
		}
		return facts, nil
	}
	return nil, ErrForeign
}
