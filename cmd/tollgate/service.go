package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/unixsock"
)

// takeTimeout bounds the wait for a running service to take an edit.
const takeTimeout = 3 * time.Second

// takeKeys has a service that runs on this configuration read its key file now, so
// that an edit holds when its command returns. Where none runs there is nothing to
// do. That the service could not be told is no failure of the edit: it watches the
// file. It is said on stderr.
func takeKeys(env *Env, cfg *config.Config) {
	switch err := reloadKeys(env, cfg); {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
	default:
		fmt.Fprintf(env.Stderr, "the running service has not taken it yet: %v\n", err)
	}
}

func reloadKeys(env *Env, cfg *config.Config) error {
	return askService(env, cfg, http.MethodPost, "/admin/reload-keys", nil, nil)
}

// errNoService means that no gateway runs on this configuration.
var errNoService = errors.New("no gateway runs here with this configuration; start it, or name engines in the file")

// askService has the running service do something; what it answers goes into answer,
// where that is not nil.
func askService(env *Env, cfg *config.Config, method, path string, body, answer any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("ask the service: %w", err)
	}
	client := unixsock.HTTPClient(cfg.InState(config.HTTPSocket), takeTimeout)
	req, err := http.NewRequestWithContext(env.Ctx, method, "http://tollgate"+path, bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("ask the service: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the service: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, longestAnswer))
	if err != nil {
		return fmt.Errorf("ask the service: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		if answer == nil {
			return nil
		}
		if err := json.Unmarshal(text, answer); err != nil {
			return fmt.Errorf("read what the service answered: %w", err)
		}
		return nil
	}
	var said struct {
		Error struct{ Message string }
	}
	if json.Unmarshal(text, &said) != nil || said.Error.Message == "" {
		return fmt.Errorf("the service answered %s", resp.Status)
	}
	return errors.New(said.Error.Message)
}

// longestAnswer bounds what is read of the service's answer, in bytes.
const longestAnswer = 16 << 20
