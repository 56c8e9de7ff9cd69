package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	"tollgate/internal/config"
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
