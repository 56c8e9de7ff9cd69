// Package vllm is the client of one engine: its health, the models that it lists,
// its counters, and its LoRA adapters. It never sends the engine work, which would
// cost tokens.
//
// A client asks the engine's address and no other: it follows no redirect and uses
// no proxy of the environment. Every answer is read up to a bound. The engine's key
// goes with the model list and with adapters, where vLLM wants it, and nowhere else.
package vllm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"tollgate/internal/openai"
	"tollgate/internal/secretfile"
)

const (
	maxModels  = 16 << 20 // bytes of the model list; vLLM takes 550 for each of up to 10,000 names
	maxMessage = 64 << 10 // bytes of an answer about an adapter
	// maxMetrics bounds the page of metrics, in bytes; a real engine's has 65 KB.
	maxMetrics = 16 << 20
	// maxHealth bounds what is read of /health, whose body is empty.
	maxHealth = 64 << 10

	defaultTimeout = 2 * time.Second
	dialTimeout    = 5 * time.Second
	// idleTimeout is shorter than the 5 s after which vLLM closes an idle connection:
	// a question must not meet one that is closing.
	idleTimeout = 3 * time.Second
)

// Errors of a [Client].
var (
	// ErrTooLong means that an answer is longer than any engine's.
	ErrTooLong = errors.New("the answer is too long")
	// ErrNoModel means that the engine lists no model.
	ErrNoModel = errors.New("the engine lists no model")
)

// StatusError is an answer with a status other than 200.
type StatusError struct {
	Path   string
	Status int
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s answers %d", e.Path, e.Status) }

// Options say which engine a [Client] asks, and how.
type Options struct {
	Address string // host:port
	// KeyFile holds the engine's key. It is read for every question that needs the
	// key, so that a new one holds at once; empty means that there is none.
	KeyFile string
	// Timeout bounds one question, in addition to its context; 0 means 2 s.
	Timeout time.Duration
	// Fresh opens a connection for every question. It shows that the engine still
	// accepts connections.
	Fresh bool
}

// Client asks one engine. Many goroutines may use it at once.
type Client struct {
	o    Options
	http *http.Client
}

// New returns a client, which asks nothing by itself. [Client.Close] gives back
// its connections.
func New(o Options) *Client {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	return &Client{o: o, http: &http.Client{
		Timeout: o.Timeout,
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			DisableKeepAlives:      o.Fresh,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections. The client may be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Address is host:port of the engine.
func (c *Client) Address() string { return c.o.Address }

// Health is nil when the engine says that it is healthy. A status other than 200
// is a [*StatusError].
func (c *Client) Health(ctx context.Context) error {
	_, err := c.get(ctx, "/health", maxHealth, false)
	return err
}

// Models lists what the engine serves, the base model first. It fails with
// [ErrNoModel] where the list is empty.
func (c *Client) Models(ctx context.Context) ([]openai.Model, error) {
	body, err := c.get(ctx, "/v1/models", maxModels, true)
	if err != nil {
		return nil, err
	}
	models, err := openai.ModelNames(body)
	if err != nil {
		return nil, fmt.Errorf("list models: %w", err)
	}
	if len(models) == 0 {
		return nil, ErrNoModel
	}
	return models, nil
}

// Ready is nil when the engine is healthy and lists one of the names, or any model
// where no names are given: another program may have the port.
func (c *Client) Ready(ctx context.Context, names ...string) error {
	if err := c.Health(ctx); err != nil {
		return err
	}
	models, err := c.Models(ctx)
	if err != nil || len(names) == 0 {
		return err
	}
	for _, m := range models {
		if slices.Contains(names, m.ID) {
			return nil
		}
	}
	return fmt.Errorf("the engine at %s does not list %q", c.o.Address, names)
}

// get asks for a page of at most limit bytes.
func (c *Client) get(ctx context.Context, path string, limit int64, withKey bool) ([]byte, error) {
	body, err := c.open(ctx, path, withKey)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return read(body, limit)
}

// open asks for a page. The caller closes it.
func (c *Client) open(ctx context.Context, path string, withKey bool) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, path, nil, withKey)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	// What is left unread costs the connection, and the next question a new one.
	_, _ = io.CopyN(io.Discard, resp.Body, maxMessage)
	_ = resp.Body.Close()
	return nil, &StatusError{Path: path, Status: resp.StatusCode}
}

// do sends a request. The caller closes the body of the answer.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, withKey bool) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.o.Address+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask engine: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if withKey {
		key, err := secretfile.Read(c.o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("vllm.api_key_file: %w", err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask engine: %w", err)
	}
	return resp, nil
}

// read reads at most limit bytes and fails where there are more.
func read(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("ask engine: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("ask engine: %w: more than %d bytes", ErrTooLong, limit)
	}
	return b, nil
}
