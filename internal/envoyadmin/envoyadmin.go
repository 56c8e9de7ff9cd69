// Package envoyadmin asks Envoy's admin socket: whether it serves, what runs in it,
// and that it takes no new requests.
package envoyadmin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/unixsock"
)

const (
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 4 << 20
	// timeout bounds one question.
	timeout = 5 * time.Second
	// poll is the time between two looks at the number of active requests.
	poll = 100 * time.Millisecond
	// active counts the requests at the edge.
	active = "http.edge.downstream_rq_active"
)

// Admin is Envoy's admin socket. It may be asked from several goroutines.
type Admin struct{ client *http.Client }

// New speaks to the socket at that path. It connects when it is asked, and again by
// itself after a restart of Envoy.
func New(socket string) *Admin {
	client := unixsock.HTTPClient(socket, timeout)
	if t, ok := client.Transport.(*http.Transport); ok {
		t.DisableKeepAlives, t.MaxIdleConns = false, 2 // some ask every second
	}
	return &Admin{client: client}
}

// Live is nil when Envoy serves.
func (a *Admin) Live(ctx context.Context) error {
	_, err := a.ask(ctx, http.MethodGet, "/ready")
	return err
}

// Refuse refuses new connections at once and lets requests finish.
func (a *Admin) Refuse(ctx context.Context) error {
	_, err := a.ask(ctx, http.MethodPost, "/drain_listeners")
	return err
}

// Discourage takes new connections as before, and tells clients with each answer to
// make a new connection for the next request.
func (a *Admin) Discourage(ctx context.Context) error {
	_, err := a.ask(ctx, http.MethodPost, "/drain_listeners?graceful")
	return err
}

// Stat is one counter or gauge.
func (a *Admin) Stat(ctx context.Context, name string) (int, error) {
	body, err := a.ask(ctx, http.MethodGet, "/stats?filter=^"+strings.ReplaceAll(name, ".", "%5C.")+"$")
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	_, value, ok := strings.Cut(strings.TrimSpace(body), ": ")
	if !ok {
		return 0, fmt.Errorf("read %s: envoy does not have it", name)
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

// Idle waits until no request is active at the edge. It tells seen how many there
// are, and returns the error of ctx when that ends first.
func (a *Admin) Idle(ctx context.Context, seen func(requests int)) error {
	t := time.NewTicker(poll)
	defer t.Stop()
	for {
		n, err := a.Stat(ctx, active)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		}
		if seen(n); n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
}

// ask returns the body of a 200; anything else is an error.
func (a *Admin) ask(ctx context.Context, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, http.NoBody)
	if err != nil {
		return "", fmt.Errorf("ask envoy: %w", err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask envoy: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("ask envoy: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask envoy: %s answers %d", path, resp.StatusCode)
	}
	return string(body), nil
}
