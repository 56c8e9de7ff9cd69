package apikey

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tollgate/internal/strictfile"
)

// Ensured is what [Ensure] wrote.
type Ensured struct {
	// AdminSecret opens /admin. It is stored as a digest only: show it once, to
	// a terminal, never to a log.
	AdminSecret string
}

// Ensure writes a missing key file: the public default key (user "default") in
// plain, and one random admin key. Created is false, and nothing is changed,
// when there is a file, whatever is in it. The file is readable by its owner
// only, and appears in one step with all of its content.
func Ensure(path string) (written Ensured, created bool, err error) {
	if _, err := os.Lstat(path); err == nil {
		return Ensured{}, false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Ensured{}, false, fmt.Errorf("look for key file: %w", err)
	}
	f := &File{}
	e := &entry{}
	e.set("id", "default")
	e.set("key", DefaultSecret)
	e.set("user", "default")
	e.set("enabled", true)
	e.set("note", "public: honoured on this machine only; disable it when you have keys of your own")
	f.entries = append(f.entries, e)
	admin := f.addAdmin()
	data, err := f.marshal()
	if err != nil {
		return Ensured{}, false, fmt.Errorf("write first keys: %w", err)
	}
	created, err = strictfile.Create(path, data, 0o600)
	if err != nil {
		return Ensured{}, false, fmt.Errorf("create key file: %w", err)
	}
	if !created {
		return Ensured{}, false, nil
	}
	if err := inherit(path); err != nil {
		return Ensured{}, false, fmt.Errorf("create key file: %w", err)
	}
	return Ensured{AdminSecret: admin}, true, nil
}

// inherit gives a file that root has made to the owner of its folder, so that the
// service can read it.
func inherit(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// addAdmin adds a random admin key and returns its secret.
func (f *File) addAdmin() (secret string) {
	secret = NewSecret()
	digest := Digest(secret)
	e := &entry{}
	e.set("id", "admin")
	e.set("key_sha256", hex.EncodeToString(digest[:]))
	e.set("user", AdminUser)
	e.set("enabled", true)
	f.entries = append(f.entries, e)
	return secret
}
