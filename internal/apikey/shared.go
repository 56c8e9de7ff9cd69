package apikey

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/audit"
)

// ErrAway means that the [Source] of shared keys does not answer. Nothing was
// changed, and the keys that are known stay in use.
var ErrAway = errors.New("the keys cannot be reached")

// Source is where the keys of several gateways live. The file of a keyring that
// has one is a copy, which the source writes with [WriteCopy].
type Source interface {
	// Edit changes the keys at the source and writes the copy. [ErrAway].
	Edit(by audit.Editor, fn func(*File) error) error
	// Pull writes the copy where the source has newer keys. [ErrAway].
	Pull() error
}

// OpenShared loads a copy whose source is elsewhere, as [Open] loads a file. What
// edits or reloads the keyring asks the source first.
func OpenShared(copied string, from Source, log hclog.Logger) (*Keyring, error) {
	k, err := Open(copied, log)
	if err != nil {
		return nil, err
	}
	k.source = from
	return k, nil
}

// Apply changes the text of a key file as [Edit] changes the file. The name is
// what problems are reported under. Where fn changes nothing the text comes back
// as it is.
func Apply(name string, data []byte, fn func(*File) error) ([]byte, error) {
	f, err := parseFile(name, data)
	if err != nil {
		return nil, err
	}
	opened := f.hasAdmin(time.Now())
	if err := fn(f); err != nil {
		return nil, err
	}
	if f.edited == 0 {
		return data, nil
	}
	if opened && !f.hasAdmin(time.Now()) {
		return nil, ErrLastAdmin
	}
	out, err := f.marshal()
	if err != nil {
		return nil, fmt.Errorf("write keys: %w", err)
	}
	if _, err := parseFile(name, out); err != nil {
		return nil, fmt.Errorf("check edited keys: %w", err)
	}
	return out, nil
}

// Digests is the text of a key file without any secret and without the public
// default key: what may leave the host of the file.
func Digests(name string, data []byte) ([]byte, error) {
	f, err := parseFile(name, data)
	if err != nil {
		return nil, err
	}
	var kept []*entry
	for _, e := range f.entries {
		if e.record.key.Default {
			continue
		}
		if e.member("key") != nil {
			e.replaceSecret(hex.EncodeToString(e.record.digest[:]))
		}
		kept = append(kept, e)
	}
	f.entries = kept
	out, err := f.marshal()
	if err != nil {
		return nil, fmt.Errorf("write keys: %w", err)
	}
	if _, err := parseFile(name, out); err != nil {
		return nil, fmt.Errorf("check keys without secrets: %w", err)
	}
	return out, nil
}

// FirstAdmin is the text of a key file with one random admin key, and its secret:
// show it once, to a terminal, never to a log.
func FirstAdmin() (data []byte, secret string, err error) {
	f := &File{}
	secret = f.addAdmin()
	data, err = f.marshal()
	if err != nil {
		return nil, "", fmt.Errorf("write first keys: %w", err)
	}
	return data, secret, nil
}

// WriteCopy puts keys of a [Source] into a file in one step, readable by its
// owner only, and notes who changed them.
func WriteCopy(path string, by audit.Editor, data []byte) error {
	return replace(path, by, data)
}
