package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"tollgate/internal/admin"
	"tollgate/internal/config"
	"tollgate/internal/secretfile"
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
var errNoService = errors.New("no gateway runs here with this configuration: start it, name another with --url, or run this in its folder")

// askService has the running service do something; what it answers goes into answer,
// where that is not nil.
func askService(env *Env, cfg *config.Config, method, path string, body, answer any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("ask the service: %w", err)
	}
	client, base, header, err := env.service(cfg)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(env.Ctx, method, base+path, bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("ask the service: %w", err)
	}
	req.Header = header
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
		said.Error.Message = "the service answered " + resp.Status
	}
	return &answerError{resp.StatusCode, said.Error.Message}
}

// answerError is a refusal of the service, in its words.
type answerError struct {
	status  int
	message string
}

// Error is what the service said.
func (e *answerError) Error() string { return e.message }

// service tells how to reach the gateway that the command is about: the one of this
// host by its socket, or the one that --url names.
func (e *Env) service(cfg *config.Config) (client *http.Client, base string, header http.Header, err error) {
	header = http.Header{"Content-Type": {"application/json"}}
	if e.URL == "" {
		header.Set(admin.UserHeader, strings.TrimPrefix(e.Editor().Who, "local:"))
		return unixsock.HTTPClient(cfg.InState(config.AdminSocket), takeTimeout), "http://tollgate", header, nil
	}
	key := e.Key
	if file, ok := strings.CutPrefix(key, "@"); ok {
		if key, err = secretfile.Read(file); err != nil {
			return nil, "", nil, usageError("--key: %w", err)
		}
	}
	u, err := url.Parse(e.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, "", nil, usageError("--url: write it as https://gate.example or http://127.0.0.1:8080")
	case key == "":
		return nil, "", nil, usageError("--url needs an administrator's key: set TOLLGATE_KEY, or --key @FILE")
	}
	header.Set("Authorization", "Bearer "+key)
	return &http.Client{Timeout: remoteTimeout}, strings.TrimSuffix(e.URL, "/"), header, nil
}

// remoteTimeout bounds one question to a gateway on another host.
const remoteTimeout = 30 * time.Second

// ask has the gateway that the command is about do something.
func ask(env *Env, method, path string, body, answer any) error {
	cfg := config.Default()
	if env.URL == "" {
		var err error
		if cfg, err = env.Config(); err != nil {
			return err
		}
	}
	err := askService(env, cfg, method, path, body, answer)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		if env.URL != "" {
			return fmt.Errorf("no gateway answers at %s: %w", env.URL, err)
		}
		return errNoService
	}
	return err
}

// longestAnswer bounds what is read of the service's answer, in bytes.
const longestAnswer = 16 << 20
