package service_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/envoy"
	"tollgate/internal/apikey"
	"tollgate/internal/certtest"
)

const chat = `{"model":"tiny","max_tokens":40,"stream":true,"messages":[{"role":"user","content":"hello"}]}`

// TestTheRightCertificatePasses: streams, tollgate's own pages and the admin API, each
// with the client's own key.
func TestTheRightCertificatePasses(t *testing.T) {
	r := start(t, "", stack.Options{Keys: `[
  {"key": "` + stack.Key + `", "id": "ann", "user": "ann"},
  {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}
]`})
	a := r.Post(stack.ChatPath, chat)
	if a.StatusCode != http.StatusOK || a.Err != nil {
		t.Fatalf("a stream: %d %v %s", a.StatusCode, a.Err, a.Bytes)
	}
	if rec, truth := r.Settled(a.RequestID()), r.Truth(a.RequestID()); rec.Counts.Completion != int64(truth.Completion()) || rec.Meter != "" {
		t.Errorf("ledger %+v, engine %+v", rec, truth)
	}
	for _, c := range []struct {
		path      string
		none, own int
		admin     int
	}{
		{"/v1/models", 401, 200, 200},
		{"/v1/models/tiny", 401, 200, 200},
		{"/v1/key", 401, 200, 200},
		{"/v1/usage", 401, 200, 200},
		{"/console/", 200, 200, 200},
		{"/", 200, 200, 200},
		{"/health", 200, 200, 200},
		{"/admin/keys", 401, 403, 200},
		{"/admin/engines", 401, 403, 200},
		{"/metrics", 401, 403, 200},
	} {
		for key, want := range map[string]int{"": c.none, stack.Key: c.own, stack.AdminKey: c.admin} {
			if a := r.Do(r.HTTP1, http.MethodGet, c.path, "", "x-api-key", key, "x-tollgate-key", "root", "x-tollgate-local", "yes"); a.StatusCode != want {
				t.Errorf("%s with %q: %d %s, want %d", c.path, key, a.StatusCode, a.Bytes, want)
			}
		}
	}
	var entries struct {
		Entries []struct{ Who, From string }
	}
	made := r.Admin(http.MethodPost, "/admin/keys", `{"user":"bob"}`)
	if err := json.Unmarshal(r.Admin(http.MethodGet, "/admin/audit", "").Bytes, &entries); err != nil || made.StatusCode != http.StatusCreated ||
		len(entries.Entries) == 0 || entries.Entries[0].Who != "root" || entries.Entries[0].From != "127.0.0.1" {
		t.Errorf("a change through another host's Envoy: %d %s, audit %+v, %v", made.StatusCode, made.Bytes, entries, err)
	}
}

// TestTheDefaultKeyOpensNothing through an Envoy of another host, even where the client
// is on the machine of that Envoy.
func TestTheDefaultKeyOpensNothing(t *testing.T) {
	keys := `[{"key": "` + apikey.DefaultSecret + `", "user": "default"}, {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}]`
	r := start(t, "", stack.Options{Keys: keys})
	for path, method := range map[string]string{"/v1/models": http.MethodGet, "/v1/key": http.MethodGet, stack.ChatPath: http.MethodPost} {
		body := ""
		if method == http.MethodPost {
			body = chat
		}
		if a := r.Do(r.HTTP1, method, path, body, "Authorization", "Bearer "+apikey.DefaultSecret, "x-tollgate-local", "yes"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Bytes)
		}
	}
	if a := r.Do(r.HTTP1, http.MethodGet, "/health", ""); strings.Contains(string(a.Bytes), "target") {
		t.Errorf("/health tells a client of another host's machine: %s", a.Bytes)
	}
	// The same key at an Envoy of this host.
	local := stack.Start(t, stack.Options{Keys: keys})
	if a := local.Do(local.HTTP1, http.MethodGet, "/v1/key", "", "Authorization", "Bearer "+apikey.DefaultSecret); a.StatusCode != http.StatusOK {
		t.Errorf("at an Envoy of this host: %d %s", a.StatusCode, a.Bytes)
	}
}

// TestOtherCertificatesAreRefused: each wrong one, in the hands of a real Envoy, whose
// clients get a 503 that says whose fault it is.
func TestOtherCertificatesAreRefused(t *testing.T) {
	r := start(t, "", stack.Options{NoStart: true})
	r.Tollgate.Start()
	r.up()
	another := certtest.New(t, "client")
	write := func(p certtest.Pair) func(*envoy.Remote) {
		return func(remote *envoy.Remote) { remote.CertFile, remote.KeyFile = p.Write(t, t.TempDir(), "wrong") }
	}
	for name, c := range map[string]struct {
		change func(*envoy.Remote)
		reason string // in tollgate's metric; "" where Envoy refuses
	}{
		"another CA":       {write(another.Issue(t, certtest.Leaf{Names: []string{envoyID}})), "unknown_ca"},
		"expired":          {write(r.client.Issue(t, certtest.Leaf{Names: []string{envoyID}, Until: time.Now().Add(-time.Minute)})), "expired"},
		"another identity": {write(r.client.Issue(t, certtest.Leaf{Names: []string{"spiffe://example.org/ns/edge/sa/other"}})), "name"},
		"another server":   {func(remote *envoy.Remote) { remote.Names = []string{"other.example.org"} }, ""},
		"another CA there": {func(remote *envoy.Remote) { remote.CAFile = r.path("client-ca.crt") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			remote := *r.remote
			c.change(&remote)
			r.refused(t, &remote, c.reason)
		})
	}
	t.Run("none", func(t *testing.T) { // Envoy's bootstrap, with the certificate taken out
		r.refusedAs(t, r.remote, "no_certificate", func(bootstrap string) string {
			return strings.ReplaceAll(bootstrap, `tls_certificate_sds_secret_configs: [{ name: service_certificate, sds_config: { path_config_source: { path: "run/envoy-service-certificate.yaml" }, resource_api_version: V3 } }]`, "")
		})
	})
	// The right one, still.
	r.Envoy.Start()
	r.Ready()
	if a := r.Post(stack.ChatPath, chat); a.StatusCode != http.StatusOK {
		t.Errorf("the right one: %d %s", a.StatusCode, a.Bytes)
	}
}

// refused starts an Envoy with another certificate and asks it for an answer.
func (r *rig) refused(t *testing.T, remote *envoy.Remote, reason string) {
	t.Helper()
	r.refusedAs(t, remote, reason, func(s string) string { return s })
}

func (r *rig) refusedAs(t *testing.T, remote *envoy.Remote, reason string, change func(string) string) {
	t.Helper()
	before := 0.0
	if reason != "" {
		before = r.Metric("tollgate_service_connections_refused_total", "reason", reason)
	}
	e := r.EnvoyWith(remote, change)
	e.Start()
	defer e.Kill()
	stack.Eventually(t, 20*time.Second, "Envoy to listen", func() bool {
		resp, err := r.HTTP1.Get(r.URL + "/health")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	for _, path := range []string{stack.ChatPath, "/v1/messages"} {
		a := r.Post(path, chat)
		if a.StatusCode != http.StatusServiceUnavailable || a.ErrorCode() != "service_unavailable" && path == stack.ChatPath || !json.Valid(a.Bytes) || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s %v", path, a.StatusCode, a.Bytes, a.Header)
		}
	}
	if reason != "" {
		stack.Eventually(t, 10*time.Second, "tollgate to count "+reason, func() bool {
			return r.Metric("tollgate_service_connections_refused_total", "reason", reason) > before
		})
		log, err := os.ReadFile(filepath.Join(r.Cfg.Log.Dir, "gateway.log"))
		if err != nil || !strings.Contains(string(log), `"reason":"`+reason+`"`) {
			t.Errorf("the log does not say %s: %v", reason, err)
		}
	}
}
