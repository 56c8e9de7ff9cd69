package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"tollgate/internal/logfile"
	"tollgate/internal/secretfile"
	"tollgate/internal/unixsock"
)

// hostTimeout bounds one call of a launcher: loading an adapter reads weights.
const hostTimeout = 25 * time.Second

// localHost is the name of this host's launcher.
const localHost = "local"

// launcherHost calls a launcher at its control address.
type launcherHost struct {
	name, base, tokenFile string
	client                *http.Client
}

// LauncherHost returns the host whose launcher listens on address: a path of a
// Unix socket, or host:port with the bearer token in tokenFile.
func LauncherHost(address, tokenFile string) Host {
	if strings.Contains(address, "/") || !strings.Contains(address, ":") {
		return &launcherHost{name: localHost, base: "http://launcher", client: unixsock.HTTPClient(address, hostTimeout)}
	}
	return &launcherHost{
		name: address, base: "http://" + address, tokenFile: tokenFile, client: &http.Client{Timeout: hostTimeout},
	}
}

func (h *launcherHost) Name() string { return h.name }

func (h *launcherHost) Call(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.base+path, bytes.NewReader(body)) //nolint:gosec // the address is the configuration's
	if err != nil {
		return 0, nil, fmt.Errorf("call launcher: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if h.tokenFile != "" {
		token, err := secretfile.Read(h.tokenFile)
		if err != nil {
			return 0, nil, fmt.Errorf("launcher.token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := h.client.Do(req) //nolint:gosec // the address is the configuration's
	if err != nil {
		return 0, nil, fmt.Errorf("call launcher: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer of launcher: %w", err)
	}
	return resp.StatusCode, answer, nil
}

// logStats asks the first launcher; without one, the files are counted here.
func (a *API) logStats(w http.ResponseWriter, r *http.Request) {
	if a.relay(w, r, http.MethodGet, "/log-stats") {
		return
	}
	stats, err := logfile.Stats(a.o.LogDir)
	if err != nil {
		a.broken(w, "cannot read the log folder", err)
		return
	}
	writeJSON(w, http.StatusOK, stats)
}

func (a *API) cleanLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	days, err := strconv.Atoi(q.Get("days"))
	if err != nil || days < 0 || days > 36500 || onlyKnown(q, "days") != nil {
		fail(w, http.StatusBadRequest, "invalid_request", "days", "days is a whole number of days to keep, from 0, as in /admin/clean-logs?days=7.")
		return
	}
	if !a.recorded(w, r, "log.clean", "logs", map[string]any{"days": days}) {
		return
	}
	if a.relay(w, r, http.MethodPost, "/clean-logs?"+url.Values{"days": {strconv.Itoa(days)}}.Encode()) {
		return
	}
	done, err := logfile.Clean(a.o.LogDir, days)
	if err != nil {
		a.broken(w, "cannot clean the log folder", err)
		return
	}
	writeJSON(w, http.StatusOK, done)
}

// relay answers with the answer of this host's launcher; it returns false when there is
// no launcher.
func (a *API) relay(w http.ResponseWriter, r *http.Request, method, path string) bool {
	if len(a.o.Hosts) == 0 {
		return false
	}
	status, answer, err := a.o.Hosts[0].Call(r.Context(), method, path, nil)
	if err != nil {
		return false // the log folder can be looked after without it
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(answer)
	return true
}

// hostResult is one host's answer to a fan-out.
type hostResult struct {
	Host    string `json:"host"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`
	status  int
}

// Routes of a launcher's control API.
const (
	loadAdapter   = "/load-lora-adapter"
	unloadAdapter = "/unload-lora-adapter"
)

// lora loads or unloads an adapter on every host.
func (a *API) lora(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var asked struct {
			Name string `json:"lora_name"`
		}
		if err != nil || json.Unmarshal(body, &asked) != nil || asked.Name == "" {
			fail(w, http.StatusBadRequest, "invalid_request", "lora_name", `The body is JSON as vLLM has it: {"lora_name": "x", "lora_path": "y"}.`)
			return
		}
		if len(a.o.Hosts) == 0 {
			a.broken(w, "cannot reach a launcher", errors.New("no launcher is configured"))
			return
		}
		action := map[string]string{loadAdapter: "adapter.load", unloadAdapter: "adapter.unload"}[path]
		if !a.recorded(w, r, action, asked.Name, nil) {
			return
		}
		results := a.fanOut(r.Context(), path, body)
		a.o.Engines.Refresh(r.Context())
		writeJSON(w, worst(results), map[string]any{"adapter": asked.Name, "hosts": results})
	}
}

func (a *API) fanOut(ctx context.Context, path string, body []byte) []hostResult {
	results := make([]hostResult, len(a.o.Hosts))
	var wg sync.WaitGroup
	for i, h := range a.o.Hosts {
		wg.Go(func() {
			status, answer, err := h.Call(ctx, http.MethodPost, path, body)
			if err != nil {
				results[i] = hostResult{Host: h.Name(), Message: "the launcher does not answer", status: http.StatusServiceUnavailable}
				a.o.Log.Warn("launcher does not answer", "host", h.Name(), "error", err)
				return
			}
			results[i] = hostResult{Host: h.Name(), OK: status == http.StatusOK, Message: said(answer), status: status}
		})
	}
	wg.Wait()
	return results
}

// said returns the message in a launcher's answer.
func said(answer []byte) string {
	var v struct {
		Message string `json:"message"`
		Error   struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(answer, &v) != nil {
		return strings.TrimSpace(string(answer))
	}
	if v.Error.Message != "" {
		return v.Error.Message
	}
	return v.Message
}

// worst returns the highest status; it is 200 only when every host succeeded.
func worst(results []hostResult) int {
	status := http.StatusOK
	for _, r := range results {
		status = max(status, r.status)
	}
	return status
}
