package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"tollgate/internal/admin"
	"tollgate/internal/admission"
	"tollgate/internal/control"
	"tollgate/internal/route"
	"tollgate/internal/supervisor"
)

// contract is the document that the API serves, and what checks answers against it.
type contract struct {
	operations []string // "GET /admin/keys"
	mux        *http.ServeMux
	validator  validator.Validator
}

// theContract is read once. Its objects are closed: a field that the document does not
// name is a mistake of the document.
var theContract = sync.OnceValues(func() (*contract, error) {
	w := httptest.NewRecorder()
	admin.New(admin.Options{Metrics: http.NotFoundHandler()}).Local().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/admin/openapi.json", nil))
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		return nil, err
	}
	c := &contract{mux: http.NewServeMux()}
	for path, item := range doc["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if method == "parameters" {
				continue
			}
			pattern := strings.ToUpper(method) + " " + path
			c.operations = append(c.operations, pattern)
			c.mux.Handle(pattern, http.NotFoundHandler())
		}
	}
	slices.Sort(c.operations)
	shut(doc)
	closed, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	parsed, err := libopenapi.NewDocument(closed)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(parsed)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	c.validator = v
	return c, nil
})

// shut closes every object with properties in a schema.
func shut(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, has := v["properties"]; has && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for _, child := range v {
			shut(child)
		}
	case []any:
		for _, child := range v {
			shut(child)
		}
	}
}

func theDocument(t *testing.T) *contract {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatal("the document cannot be read: ", err)
	}
	return c
}

// described fails where an answer is not as the document says.
func described(t *testing.T, req *http.Request, resp *http.Response) {
	t.Helper()
	c := theDocument(t)
	_, pattern := c.mux.Handler(req)
	if pattern == "" {
		return // a page, or no such path
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if ok, errs := c.validator.ValidateHttpResponse(req, resp); !ok {
		for _, e := range errs {
			t.Errorf("%s, status %d, is not as the document says: %s %v\n%s", pattern, resp.StatusCode, e.Message, e.SchemaValidationErrors, body)
		}
	}
}

// The document and the API have the same operations, and the document is a valid one.
func TestTheDocumentHasEveryOperation(t *testing.T) {
	c := theDocument(t)
	if ok, errs := c.validator.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Error(e.Message, e.Reason)
		}
	}
	if diff := cmp.Diff(admin.Operations(), c.operations); diff != "" {
		t.Errorf("operations (-served +described):\n%s", diff)
	}
}

// controlHost is a host with the control API of a launcher.
type controlHost struct{ h http.Handler }

func (controlHost) Name() string { return "local" }

func (c controlHost) Call(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(body)))
	return w.Code, w.Body.Bytes(), nil
}

func newControlHost(t *testing.T) controlHost {
	t.Helper()
	at := time.Now()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vllm.log"), []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return controlHost{control.Handler(control.Options{
		LogDir: dir, Log: hclog.NewNullLogger(),
		Children: func() []supervisor.Status {
			return []supervisor.Status{
				{
					Name: "vllm", State: supervisor.Ready, PID: 7, Since: at, Restarts: 1, By: supervisor.Restarts{Crash: 1}, LostLines: 1,
					LastExit: &supervisor.Exit{Code: -1, Signal: "killed", Reason: "hung", Cause: supervisor.Hung, At: at, Left: 1},
				},
				{Name: "envoy", State: supervisor.Ready, Since: at},
			}
		},
		Restart: func(child string) error {
			if child != "vllm" {
				return control.ErrNoChild
			}
			return nil
		},
	})}
}

// Each operation answers as it is described, with success and without: what is not
// named here fails, so that a new operation comes with its line.
func TestEveryOperationAnswersAsDescribed(t *testing.T) {
	r := newRig(t, newControlHost(t))
	id := r.add(`{"id":"ann","user":"ann","quota":5,"quota_period":"day","limits":{"concurrent":null},"models":["tiny"],"expires_at":"2099-01-01T00:00:00Z","note":"n","trust_end_user":true}`)
	r.settled(id, 1, 5)
	engine, asked := vllm(t), map[string]bool{}
	for _, c := range []struct {
		operation, target, body string
		status                  int
	}{
		{"GET /health", "/health", "", 200},
		{"GET /metrics", "/metrics", "", 200},
		{"GET /admin/openapi.json", "/admin/openapi.json", "", 200},
		{"GET /v1/key", "/v1/key", "", 200},
		{"GET /v1/usage", "/v1/usage?by=end_user", "", 200},
		{"GET /v1/requests", "/v1/requests?limit=1", "", 200},
		{"POST /admin/reload-keys", "/admin/reload-keys", "", 200},
		{"GET /admin/keys", "/admin/keys", "", 200},
		{"POST /admin/keys", "/admin/keys", `{"user":"bob","id":"bob"}`, 201},
		{"POST /admin/keys", "/admin/keys", `{"user":"bob","id":"bob"}`, 409},
		{"GET /admin/keys/{id}", "/admin/keys/ann", "", 200},
		{"GET /admin/keys/{id}", "/admin/keys/nobody", "", 404},
		{"PATCH /admin/keys/{id}", "/admin/keys/ann", `{"quota":null,"enabled":false,"drain":true}`, 200},
		{"PATCH /admin/keys/{id}", "/admin/keys/ann", `{"quota":-1}`, 400},
		{"POST /admin/keys/{id}/rotate", "/admin/keys/ann/rotate?grace=1h", "", 200},
		{"GET /admin/limits", "/admin/limits", "", 200},
		{"GET /admin/limits/{id}", "/admin/limits/ann", "", 200},
		{"GET /admin/requests", "/admin/requests", "", 200},
		{"DELETE /admin/requests/{id}", "/admin/requests/r1", "", 404},
		{"GET /admin/usage", "/admin/usage?by=day,model", "", 200},
		{"GET /admin/usage", "/admin/usage?by=user&format=csv", "", 200},
		{"GET /admin/ledger", "/admin/ledger?limit=1", "", 200},
		{"GET /admin/ledger", "/admin/ledger?limit=0", "", 400},
		{"GET /admin/ledger/verify", "/admin/ledger/verify", "", 200},
		{"GET /admin/audit", "/admin/audit", "", 200},
		{"GET /admin/audit/verify", "/admin/audit/verify", "", 200},
		{"GET /admin/engine", "/admin/engine", "", 200},
		{"POST /admin/engines", "/admin/engines", `{"address":"` + engine + `"}`, 201},
		{"GET /admin/engines", "/admin/engines", "", 200},
		{"DELETE /admin/engines/{address}", "/admin/engines/" + engine, "", 200},
		{"POST /admin/load-lora-adapter", "/admin/load-lora-adapter", `{"lora_name":"x","lora_path":"x"}`, 409},
		{"POST /admin/unload-lora-adapter", "/admin/unload-lora-adapter", `{"lora_name":"x"}`, 409},
		{"GET /admin/children", "/admin/children", "", 200},
		{"POST /admin/children/{name}/restart", "/admin/children/vllm/restart", "", 202},
		{"POST /admin/children/{name}/restart", "/admin/children/x/restart", "", 404},
		{"GET /admin/logs/{name}", "/admin/logs/gateway.log", "", 404},
		{"GET /admin/log-stats", "/admin/log-stats", "", 200},
		{"POST /admin/clean-logs", "/admin/clean-logs?days=3", "", 200},
		{"DELETE /admin/keys/{id}", "/admin/keys/bob", "", 200},
	} {
		method, _, _ := strings.Cut(c.operation, " ")
		var who []string
		if strings.HasPrefix(c.target, "/v1/") {
			who = []string{as, id}
		}
		if a := r.do(method, c.target, c.body, who...); a.status != c.status {
			t.Errorf("%s %s: %d %s, want %d", method, c.target, a.status, a.body, c.status)
		}
		asked[c.operation] = true
	}
	if diff := cmp.Diff(admin.Operations(), slices.Sorted(maps.Keys(asked))); diff != "" {
		t.Errorf("operations (-served +asked here):\n%s", diff)
	}
}

// The check hands a wrong method over: the answer names the methods of the path.
func TestAWrongMethodIsToldTheRightOnes(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, target, allow string
		status                int
	}{
		{"PUT", "/admin/keys", "GET, POST, OPTIONS", 405},
		{"OPTIONS", "/admin/keys/ann", "DELETE, GET, PATCH, OPTIONS", 405},
		{"PUT", "/admin/clean-logs", "POST, OPTIONS", 405},
		{"PUT", "/admin/nothing", "", 404},
	} {
		a := r.do(c.method, c.target, "", as, "", route.RefusalHeader, string(admission.WrongMethod))
		if a.status != c.status || a.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, allow %q; want %d, %q", c.method, c.target, a.status, a.header.Get("Allow"), c.status, c.allow)
		}
	}
}
