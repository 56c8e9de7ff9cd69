package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tollgate/internal/admin"
	"tollgate/internal/admission"
	"tollgate/internal/alias"
	"tollgate/internal/apikey"
	"tollgate/internal/fleet"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/usage"
)

// rig is the API over a real key file, ledger, gate and engine pool.
type rig struct {
	t         *testing.T
	api       *admin.API
	keys      *apikey.Keyring
	ledger    *sqlitestore.Store
	recording bool
	admin     string // id of the admin key
	secrets   map[string]string
	scripted  bool // launchers say what a test wants, which need not be what launchers say
}

func newRig(t *testing.T, hosts ...admin.Host) *rig {
	t.Helper()
	r := &rig{
		t: t, recording: true, admin: "admin", secrets: map[string]string{},
		scripted: slices.ContainsFunc(hosts, func(h admin.Host) bool { _, is := h.(*host); return is }),
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	made, _, err := apikey.Ensure(path)
	if err != nil {
		t.Fatal(err)
	}
	r.secrets[r.admin] = made.AdminSecret
	if r.keys, err = apikey.Open(path, nil); err != nil {
		t.Fatal(err)
	}
	if r.ledger, err = sqlitestore.Open(t.Context(), sqlitestore.Options{Path: filepath.Join(dir, "ledger.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.ledger.Close() })
	limits := limit.NewMemory()
	t.Cleanup(func() { _ = limits.Close() })
	engines, err := fleet.New(fleet.Options{File: []fleet.Entry{{Address: vllm(t)}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = engines.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-stopped })
	engines.Refresh(t.Context())
	reg := prometheus.NewRegistry()
	gate := admission.NewGate(admission.Options{
		Keys: r.keys, Limits: limits, Ledger: r.ledger, Catalog: engines, Estimator: limit.NewEstimator(256),
		Metrics: admission.NewMetrics(reg, reg), Caps: unlimited(),
	})
	r.api = admin.New(admin.Options{
		Gate: gate, Keys: r.keys, Limits: limits, Caps: unlimited(), Ledger: r.ledger, Engines: engines, Aliases: aliases,
		Recording: func() bool { return r.recording }, Metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), Hosts: hosts,
		LogDir: filepath.Join(dir, "logs"), Log: hclog.NewNullLogger(),
	})
	return r
}

var aliases = alias.New([]alias.Alias{
	{Name: "chat", Targets: []alias.Target{{Model: "tiny", Weight: 1}, {Model: "away", Weight: 1}}},
	{Name: "claude-*", Targets: []alias.Target{{Model: "away", Weight: 1}}},
})

func unlimited() limit.Caps {
	return limit.Caps{
		Global: limit.Unlimited, Concurrent: limit.Unlimited, Requests: limit.Unlimited, Tokens: limit.Unlimited, Quota: limit.Unlimited,
	}
}

// vllm is the address of an engine that lists one model.
func vllm(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			_, _ = io.WriteString(w, `{"data":[{"id":"tiny","object":"model","max_model_len":100}]}`)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// answer is what the API said.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) code() string {
	var v struct{ Error struct{ Code string } }
	_ = json.Unmarshal([]byte(a.body), &v)
	return v.Error.Code
}

// as, among the headers of a request, sends it through an Envoy with the secret of this
// key, or without one. Other requests are commands of this host.
const as = "as"

func (r *rig) do(method, target, body string, header ...string) answer {
	r.t.Helper()
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	handler := r.api.Local()
	for i := 0; i < len(header); i += 2 {
		switch {
		case header[i] != as:
			req.Header.Set(header[i], header[i+1])
		case header[i+1] == "":
			handler = r.api.Edge(true)
		default:
			handler = r.api.Edge(true)
			req.Header.Set("Authorization", "Bearer "+r.secrets[header[i+1]])
		}
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	if !r.scripted {
		described(r.t, req, w.Result())
	}
	return answer{w.Code, w.Header(), w.Body.String()}
}

// add makes a key through the API and returns its id.
func (r *rig) add(body string) string {
	r.t.Helper()
	a := r.do(http.MethodPost, "/admin/keys", body)
	var made apikey.Created
	if err := json.Unmarshal([]byte(a.body), &made); err != nil || a.status != http.StatusCreated {
		r.t.Fatalf("add %s: %d %s", body, a.status, a.body)
	}
	r.secrets[made.ID] = made.Secret
	return made.ID
}

// record writes one finished request.
func (r *rig) record(lease, user string, tokens int64) {
	r.t.Helper()
	now := time.Now()
	if err := r.ledger.Begin(r.t.Context(), ledger.Intent{
		LeaseID: lease, RequestID: lease, KeyID: "k", User: user, Model: "tiny", Endpoint: "/v1/completions", N: 1, Prompts: 1, StartedAt: now,
	}); err != nil {
		r.t.Fatal(err)
	}
	counts := usage.None()
	counts.Prompt, counts.Completion = tokens, tokens
	if _, _, err := r.ledger.Settle(r.t.Context(), ledger.Settlement{
		LeaseID: lease, Reason: ledger.Complete, Quality: ledger.Exact, Counts: counts, Status: 200, EndedAt: now,
	}); err != nil {
		r.t.Fatal(err)
	}
}
