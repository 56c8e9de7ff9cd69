package config

import (
	"errors"
	"io/fs"

	"tollgate/internal/strictfile"
)

// DefaultPath is the path of the file by default.
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
	data, err := strictfile.Read(path, MaxSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, strictfile.Fail(path, "does not exist", "name another with --config or CONFIG_FILE", err)
	case err != nil:
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
	created, err = strictfile.Create(path, Sample(simulated), 0o644)
	if err != nil {
		return nil, false, strictfile.Fail(path, "cannot be written: "+strictfile.Reason(err), "make its folder writable, or name another file with --config", err)
	}
	cfg, err = Load(path)
	return cfg, created, err
}
