package main

import (
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
	client := unixsock.HTTPClient(cfg.InState(config.HTTPSocket), takeTimeout)
	req, err := http.NewRequestWithContext(env.Ctx, http.MethodPost, "http://tollgate/admin/reload-keys", http.NoBody)
	if err != nil {
		return fmt.Errorf("ask the service: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the service: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	const longest = 4096 // bytes
	var said struct {
		Error struct{ Message string }
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, longest))
	if json.Unmarshal(body, &said) != nil || said.Error.Message == "" {
		return fmt.Errorf("the service answered %s", resp.Status)
	}
	return errors.New(said.Error.Message)
}
