package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/unixsock"
	"tollgate/internal/vllm"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 4 << 20

// get asks for a URL and returns the status and the body.
func get(ctx context.Context, client *http.Client, url, bearer string) (int, []byte, error) {
	return ask(ctx, client, http.MethodGet, url, bearer)
}

func ask(ctx context.Context, client *http.Client, method, url, bearer string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, body, err
}

// engineTimeout bounds one question to an engine.
const engineTimeout = 10 * time.Second

// engineClient asks the engine at address over a new connection each time: it must
// accept one to be well.
func engineClient(address string, v *config.VLLM) *vllm.Client {
	return vllm.New(vllm.Options{Address: address, KeyFile: v.APIKeyFile, Timeout: engineTimeout, Fresh: true})
}

// envoyAdmin speaks to Envoy's admin socket.
type envoyAdmin struct{ client *http.Client }

func newEnvoyAdmin(socket string) *envoyAdmin {
	client := unixsock.HTTPClient(socket, 5*time.Second)
	if t, ok := client.Transport.(*http.Transport); ok {
		// It is asked every second. The transport connects again by itself after a
		// restart of Envoy.
		t.DisableKeepAlives, t.MaxIdleConns = false, 2
	}
	return &envoyAdmin{client: client}
}

// live is nil when Envoy serves.
func (a *envoyAdmin) live(ctx context.Context) error {
	status, _, err := get(ctx, a.client, "http://envoy/ready", "")
	if err != nil {
		return fmt.Errorf("ask envoy: %w", err)
	}
	if status != http.StatusOK {
		return fmt.Errorf("ask envoy: /ready answers %d", status)
	}
	return nil
}

// drain refuses new connections at once and lets requests finish.
func (a *envoyAdmin) drain(ctx context.Context) error {
	status, _, err := ask(ctx, a.client, http.MethodPost, "http://envoy/drain_listeners", "")
	if err != nil {
		return fmt.Errorf("drain envoy: %w", err)
	}
	if status != http.StatusOK {
		return fmt.Errorf("drain envoy: status %d", status)
	}
	return nil
}

// stat is one counter or gauge.
func (a *envoyAdmin) stat(ctx context.Context, name string) (int, error) {
	status, body, err := get(ctx, a.client, "http://envoy/stats?filter=^"+strings.ReplaceAll(name, ".", "%5C.")+"$", "")
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	_, value, ok := strings.Cut(strings.TrimSpace(string(body)), ": ")
	if status != http.StatusOK || !ok {
		return 0, fmt.Errorf("read %s: envoy does not have it", name)
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

// edgeClient asks our own edge, whose certificate is for another name.
func edgeClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // only /health of this host is asked, without a credential
	}}
}

// edgeHealth is the status with which the edge answers /health.
func edgeHealth(ctx context.Context, client *http.Client, base string) (int, error) {
	status, _, err := get(ctx, client, base+"/health", "")
	if err != nil {
		return 0, fmt.Errorf("ask the edge: %w", err)
	}
	return status, nil
}
