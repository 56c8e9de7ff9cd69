package apikey

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	admin := NewSecret()
	digest := Digest(admin)
	e = &entry{}
	e.set("id", "admin")
	e.set("key_sha256", hex.EncodeToString(digest[:]))
	e.set("user", AdminUser)
	e.set("enabled", true)
	f.entries = append(f.entries, e)
	data, err := f.marshal()
	if err != nil {
		return Ensured{}, false, fmt.Errorf("write first keys: %w", err)
	}
	created, err = createFile(path, data)
	if err != nil || !created {
		return Ensured{}, false, err
	}
	return Ensured{AdminSecret: admin}, true, nil
}

// createFile makes a file that must not exist yet; false when it does. The link
// is made of a complete file and cannot replace another.
func createFile(path string, data []byte) (bool, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, fmt.Errorf("create folder of key file: %w", err)
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return false, fmt.Errorf("create key file: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return false, fmt.Errorf("write key file: %w", err)
	}
	err = os.Link(tmp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create key file: %w", err)
	}
	return true, syncFolder(dir)
}
