package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// DefaultPath is where the file lies when nothing else is said.
const DefaultPath = "config/config.yaml"

// Path is the file to use: the flag, then CONFIG_FILE, then [DefaultPath].
func Path(flag string, getenv func(string) string) string {
	if flag != "" {
		return flag
	}
	if env := getenv("CONFIG_FILE"); env != "" {
		return env
	}
	return DefaultPath
}

// Load reads and checks a file. Every error is an [*Error]; a missing file is
// also [fs.ErrNotExist].
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// LoadOrCreate is [Load], but a missing file is written first, with every
// default in it and a comment for each, and created is true. With simulated the
// file starts the simulated engine and says how to name a real model. A file
// that exists is never changed, nor is one that appears at the same moment.
func LoadOrCreate(path string, simulated bool) (cfg *Config, created bool, err error) {
	cfg, err = Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return cfg, false, err
	}
	created, err = create(path, Sample(simulated))
	if err != nil {
		return nil, false, &Error{
			Problems: []Problem{{File: path, Message: "cannot be written: " + reason(err), Suggestion: "make its folder writable, or name another file with --config"}},
			cause:    err,
		}
	}
	cfg, err = Load(path)
	return cfg, created, err
}

// create writes a file that must not exist yet; false when it does. A link is
// made of a complete temporary file, so that nobody sees half of it and an
// existing file cannot be replaced.
func create(path string, data []byte) (bool, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, fmt.Errorf("create folder: %w", err)
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return false, fmt.Errorf("create temporary file: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return false, fmt.Errorf("write temporary file: %w", err)
	}
	err = os.Link(tmp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("name file: %w", err)
	}
	return true, nil
}

// read takes the whole file, at most one byte more than [MaxSize].
func read(path string) ([]byte, error) {
	fail := func(message, suggestion string, cause error) error {
		return &Error{Problems: []Problem{{File: path, Message: message, Suggestion: suggestion}}, cause: cause}
	}
	// Without O_NONBLOCK a named pipe would hold the open for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // the operator names it
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fail("does not exist", "name another with --config or CONFIG_FILE", err)
	case err != nil:
		return nil, fail("cannot be read: "+reason(err), "", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fail("cannot be read: "+reason(err), "", err)
	case info.IsDir():
		return nil, fail("is a directory", "name the file in it", nil)
	case !info.Mode().IsRegular() && path != os.DevNull:
		return nil, fail("is not a regular file", "name a file", nil)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fail("cannot be read: "+reason(err), "", err)
	}
	return data, nil
}

// reason is what the system said, without the path that the message has already.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err.Error()
	}
	return err.Error()
}
