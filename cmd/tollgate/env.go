package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"

	"tollgate/internal/audit"
	"tollgate/internal/config"
	"tollgate/internal/strictfile"
)

// The exit statuses.
const (
	exitDone          = 0 // done, or stopped as asked
	exitFailed        = 1
	exitMisconfigured = 2 // wrong configuration or wrong usage
)

// Env is all of the process that a command may touch.
type Env struct {
	Ctx            context.Context //nolint:containedctx // the process's own: ended by SIGINT and SIGTERM
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	ConfigFlag     string // --config; empty when it was not given
	URL, Key       string // --url and --key: another gateway, and the key for it; empty: the one of this host
}

// ConfigPath is the configuration file to use: --config, CONFIG_FILE, or the
// usual place.
func (e *Env) ConfigPath() string { return config.Path(e.ConfigFlag, e.Getenv) }

// Config reads the configuration. Where none was named and none is in the usual
// place it is the defaults, because commands that look or edit must not leave a
// file behind. Errors are a [*strictfile.Error].
func (e *Env) Config() (*config.Config, error) {
	cfg, err := config.Load(e.ConfigPath())
	if errors.Is(err, fs.ErrNotExist) && !e.named() {
		return config.Default(), nil
	}
	return cfg, err
}

// ConfigOrCreate reads the configuration; a missing file is written with the
// commented defaults, wherever it should be.
func (e *Env) ConfigOrCreate() (*config.Config, error) {
	path := e.ConfigPath()
	cfg, created, err := config.LoadOrCreate(path, false)
	if created {
		fmt.Fprintf(e.Stderr, "wrote %s with the defaults\n", path)
	}
	return cfg, err
}

// Editor is the person at this command line, for the audit.
func (e *Env) Editor() audit.Editor {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return audit.Editor{Who: "local:" + name, From: "local"}
}

// named reports whether somebody said which file to use.
func (e *Env) named() bool { return e.ConfigFlag != "" || e.Getenv("CONFIG_FILE") != "" }

// WrongUsageError is a mistake on the command line.
type WrongUsageError struct{ err error }

// Error is what was wrong.
func (e *WrongUsageError) Error() string { return e.err.Error() }

// Unwrap is the cause.
func (e *WrongUsageError) Unwrap() error { return e.err }

// usageError makes a [*WrongUsageError] as [fmt.Errorf] does.
func usageError(format string, args ...any) error {
	return &WrongUsageError{fmt.Errorf(format, args...)}
}

// status is the exit status of a command's error.
func status(err error) int {
	var (
		usage *WrongUsageError
		file  *strictfile.Error
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &file):
		return exitMisconfigured
	}
	return exitFailed
}
