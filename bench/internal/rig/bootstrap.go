package rig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

	"tollgate/bench/internal/script"
	"tollgate/envoy"
	"tollgate/internal/config"
)

// doc is a node of a bootstrap.
type doc = map[string]any

// plainBootstrap makes Tollgate's own Envoy configuration into that of a plain
// proxy: the same listener, limits, windows, timeouts and cluster, and nothing
// but the router, or a check of one key by Envoy itself when key is set. It is
// derived and not written, so that the two cannot drift apart.
func plainBootstrap(p envoy.Params, key string) ([]byte, error) {
	rendered, err := envoy.Render(p)
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	var root doc
	if err := yaml.Unmarshal(rendered, &root); err != nil {
		return nil, fmt.Errorf("read rendered bootstrap: %w", err)
	}
	res, ok := root["static_resources"].(doc)
	if !ok {
		return nil, errShape
	}
	hcm, err := manager(res)
	if err != nil {
		return nil, err
	}
	delete(hcm, "access_log")
	delete(hcm, "local_reply_config")
	filters, ok := hcm["http_filters"].([]any)
	if !ok || len(filters) == 0 {
		return nil, errShape
	}
	kept := []any{filters[len(filters)-1]} // the router
	if key != "" {
		kept = append([]any{keyAuth(key)}, kept...)
	}
	hcm["http_filters"] = kept
	hcm["route_config"] = doc{
		"name": "edge",
		"virtual_hosts": []any{doc{
			"name": "edge", "domains": []any{"*"},
			"routes": []any{doc{
				"match": doc{"prefix": "/"},
				"route": doc{"cluster": "vllm", "timeout": "0s", "idle_timeout": fmt.Sprintf("%gs", p.IdleTimeout.Seconds())},
			}},
		}},
	}
	clusters, ok := res["clusters"].([]any)
	if !ok {
		return nil, errShape
	}
	for _, c := range clusters {
		if cluster, ok := c.(doc); ok && cluster["name"] == "vllm" {
			withoutFilters(cluster)
			res["clusters"] = []any{cluster}
		}
	}
	out, err := json.Marshal(root) // Envoy takes JSON as it takes YAML
	if err != nil {
		return nil, fmt.Errorf("write bootstrap: %w", err)
	}
	return out, nil
}

// withoutFilters takes off what stands beside the engine: a plain Envoy has none.
func withoutFilters(cluster doc) {
	options, _ := cluster["typed_extension_protocol_options"].(doc)
	for _, o := range options {
		if of, ok := o.(doc); ok {
			delete(of, "http_filters")
		}
	}
}

var errShape = errors.New("envoy's bootstrap has another shape than this harness knows")

// manager finds the HTTP connection manager of the first listener.
func manager(res doc) (doc, error) {
	at := any(res)
	for _, step := range []any{"listeners", 0, "filter_chains", 0, "filters", 0, "typed_config"} {
		switch s := step.(type) {
		case string:
			m, ok := at.(doc)
			if !ok {
				return nil, errShape
			}
			at = m[s]
		case int:
			l, ok := at.([]any)
			if !ok || len(l) <= s {
				return nil, errShape
			}
			at = l[s]
		}
	}
	m, ok := at.(doc)
	if !ok {
		return nil, errShape
	}
	return m, nil
}

func keyAuth(key string) doc {
	return doc{
		"name": "envoy.filters.http.api_key_auth",
		"typed_config": doc{
			"@type":       "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
			"credentials": []any{doc{"key": key, "client": "bench"}},
			"key_sources": []any{doc{"header": "authorization"}},
		},
	}
}

// bareBootstrap lets the bare server see one header more, which tells it
// whether to cut usage out.
func bareBootstrap(p envoy.Params) ([]byte, error) {
	rendered, err := envoy.Render(p)
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	const first = "forward_rules: { allowed_headers: { patterns: ["
	if bytes.Count(rendered, []byte(first)) != 1 {
		return nil, errShape
	}
	return bytes.Replace(rendered, []byte(first), []byte(first+"{ exact: "+script.Header+" }, "), 1), nil
}

// write leaves a bootstrap where [envoy.Args] expects it.
func write(stateDir string, b []byte) (string, error) {
	path := filepath.Join(stateDir, config.BootstrapFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make run folder: %w", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return "", fmt.Errorf("write bootstrap: %w", err)
	}
	return config.BootstrapFile, nil
}
