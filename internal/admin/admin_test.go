package admin_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
)

func TestStrangersLearnOnlyWhetherItWorks(t *testing.T) {
	r := newRig(t)
	if got := r.do(http.MethodGet, "/health", "", as, ""); got.status != http.StatusOK || got.body != `{"status":"ok","vllm":[{"ready":true}]}`+"\n" {
		t.Errorf("a stranger: %d %s", got.status, got.body)
	}
	var h struct {
		VLLM       []struct{ Target string }
		DefaultKey *bool `json:"default_key"`
	}
	got := r.do(http.MethodGet, "/health", "", as, r.admin)
	if err := json.Unmarshal([]byte(got.body), &h); err != nil || h.DefaultKey == nil || !*h.DefaultKey || len(h.VLLM) != 1 || !strings.HasPrefix(h.VLLM[0].Target, "http://127.0.0.1:") {
		t.Errorf("an insider: %s", got.body)
	}
	r.recording = false
	if got := r.do(http.MethodGet, "/health", "", as, ""); got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, `"unavailable"`) {
		t.Errorf("while the ledger cannot be written: %d %s", got.status, got.body)
	}
}

func TestHealthWritesNothing(t *testing.T) {
	r := newRig(t)
	before := size(t, r)
	for range 50 {
		r.do(http.MethodGet, "/health", "")
	}
	if after := size(t, r); after != before {
		t.Errorf("the ledger's files grew from %d to %d bytes", before, after)
	}
}

// size is that of the ledger and its WAL.
func size(t *testing.T, r *rig) (n int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(r.keys.Path()), "ledger.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no ledger: %v", err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}

func TestANegativeCountIsNotUnlimited(t *testing.T) {
	r := newRig(t)
	id := r.add(`{"id":"ann","user":"ann","quota":1000,"limits":{"concurrent":2,"tokens_per_minute":null}}`)
	before := r.do(http.MethodGet, "/admin/keys/"+id, "").body
	for _, body := range []string{
		`{"quota":-1}`, `{"quota":-2}`, `{"quota":1.5}`, `{"quota":"5"}`, `{"quota":1e30}`,
		`{"limits":{"concurrent":-1}}`, `{"limits":{"requests_per_minute":-1}}`, `{"limits":{"tokens_per_minute":-1}}`,
		`{"limits":{"tokens":5}}`, `{"limits":5}`,
	} {
		if a := r.do(http.MethodPatch, "/admin/keys/"+id, body); a.status != http.StatusBadRequest || a.code() != "invalid_request" {
			t.Errorf("PATCH %s: %d %s", body, a.status, a.body)
		}
		with := strings.Replace(body, "{", `{"user":"bob",`, 1)
		if a := r.do(http.MethodPost, "/admin/keys", with); a.status != http.StatusBadRequest {
			t.Errorf("POST %s: %d %s", with, a.status, a.body)
		}
	}
	if after := r.do(http.MethodGet, "/admin/keys/"+id, "").body; after != before {
		t.Errorf("changed: %s\nbefore: %s", after, before)
	}
	if n := r.keys.Current().Len(); n != 3 {
		t.Errorf("%d keys, want the first two and ann's", n)
	}
	lifted := r.do(http.MethodPatch, "/admin/keys/"+id, `{"quota":null,"limits":null}`)
	if lifted.status != http.StatusOK || !strings.Contains(lifted.body, `"quota":null`) || strings.Contains(lifted.body, "concurrent") {
		t.Errorf("null: %d %s", lifted.status, lifted.body)
	}
}

func TestALimitThatABodyDoesNotNameStays(t *testing.T) {
	r := newRig(t)
	id := r.add(`{"id":"ann","user":"ann","limits":{"concurrent":2,"tokens_per_minute":9}}`)
	a := r.do(http.MethodPatch, "/admin/keys/"+id, `{"limits":{"concurrent":3}}`)
	if !strings.Contains(a.body, `"limits":{"concurrent":3,"tokens_per_minute":9}`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestTheLastAdminStays(t *testing.T) {
	r := newRig(t)
	attempts := map[string]func() answer{
		"removed":  func() answer { return r.do(http.MethodDelete, "/admin/keys/admin", "") },
		"disabled": func() answer { return r.do(http.MethodPatch, "/admin/keys/admin", `{"enabled":false}`) },
		"drained": func() answer {
			return r.do(http.MethodPatch, "/admin/keys/admin", `{"enabled":false,"drain":true}`)
		},
		"demoted": func() answer { return r.do(http.MethodPatch, "/admin/keys/admin", `{"user":"ann"}`) },
		"expired": func() answer {
			return r.do(http.MethodPatch, "/admin/keys/admin", `{"expires_at":"2020-01-01T00:00:00Z"}`)
		},
		"put off": func() answer {
			return r.do(http.MethodPatch, "/admin/keys/admin", `{"not_before":"2999-01-01T00:00:00Z"}`)
		},
	}
	for name, try := range attempts {
		if a := try(); a.status != http.StatusConflict || a.code() != "last_admin" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if k, ok := r.keys.Current().ByID("admin"); !ok || !k.Enabled || !k.Admin() {
		t.Fatalf("the admin key is %+v", k)
	}
	if a := r.do(http.MethodPost, "/admin/keys/admin/rotate?grace=1h", ""); a.status != http.StatusOK {
		t.Errorf("a rotation takes nobody away: %d %s", a.status, a.body)
	}
	r.add(`{"id":"second","user":"admin"}`)
	if a := r.do(http.MethodDelete, "/admin/keys/admin", ""); a.status != http.StatusOK {
		t.Errorf("with a second one: %d %s", a.status, a.body)
	}
	if a := r.do(http.MethodDelete, "/admin/keys/second", ""); a.status != http.StatusConflict {
		t.Errorf("then that one is the last: %d %s", a.status, a.body)
	}
}

func TestNobodyIsTakenForTheAdministrator(t *testing.T) {
	r := newRig(t)
	for _, user := range []string{
		"Admin", "ADMIN", "admin ", " admin", "admin\u00a0", "ad min", "аdmin", "admın", "ａｄｍｉｎ", "ad\u200bmin", "ádmin", "adm1n", "@dmin", "bob ", "\u202ebob",
	} {
		body, err := json.Marshal(map[string]string{"user": user})
		if err != nil {
			t.Fatal(err)
		}
		if a := r.do(http.MethodPost, "/admin/keys", string(body)); a.status != http.StatusBadRequest {
			t.Errorf("user %q: %d %s", user, a.status, a.body)
		}
		if a := r.do(http.MethodPatch, "/admin/keys/admin", string(body)); a.status != http.StatusBadRequest {
			t.Errorf("PATCH to user %q: %d %s", user, a.status, a.body)
		}
	}
	for _, user := range []string{"administrator", "sysadmin", "admin-team", "Ann Smith", "李雷", "Ünal", "Дмитрий", "mina"} {
		body, err := json.Marshal(map[string]string{"user": user})
		if err != nil {
			t.Fatal(err)
		}
		r.add(string(body))
	}
}

func TestGraceIsBounded(t *testing.T) {
	r := newRig(t)
	id := r.add(`{"user":"ann"}`)
	for _, grace := range []string{"-1s", "721h", "2562047h47m16s", "1d", "x"} {
		if a := r.do(http.MethodPost, "/admin/keys/"+id+"/rotate?grace="+grace, ""); a.status != http.StatusBadRequest {
			t.Errorf("grace %s: %d %s", grace, a.status, a.body)
		}
	}
	for _, grace := range []string{"0s", "720h", ""} {
		a := r.do(http.MethodPost, "/admin/keys/"+id+"/rotate?grace="+grace, "")
		var made apikey.Created
		if err := json.Unmarshal([]byte(a.body), &made); err != nil || a.status != http.StatusOK || made.ID != id || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("grace %q: %d %v", grace, a.status, err)
		}
	}
}

func TestTheReportIsThatOfTheCommandLine(t *testing.T) {
	r := newRig(t)
	r.record("0001", "=HYPERLINK(\"http://x\")", 3)
	r.record("0002", "ann", 2)
	for _, by := range ledger.Groupings() {
		groups, err := r.ledger.Usage(t.Context(), ledger.Query{By: by})
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		if err := ledger.WriteUsage(&want, ledger.CSV, ledger.Query{By: by}, groups); err != nil {
			t.Fatal(err)
		}
		a := r.do(http.MethodGet, "/admin/usage?format=csv&by="+string(by), "")
		if diff := cmp.Diff(want.String(), a.body); diff != "" || !strings.HasPrefix(a.body, string(by)+",requests,") {
			t.Errorf("by %s (-command +API):\n%s", by, diff)
		}
	}
	if a := r.do(http.MethodGet, "/admin/usage?format=csv&by=user", ""); !strings.Contains(a.body, `"'=HYPERLINK(""http://x"")",1,3,3,6`) {
		t.Errorf("the formula: %s", a.body)
	}
	if a := r.do(http.MethodGet, "/admin/usage?by=user", ""); !strings.Contains(a.body, `"user":"=HYPERLINK(`) {
		t.Errorf("JSON keeps the name: %s", a.body)
	}
	for _, query := range []string{"by=week", "format=xml", "since=never", "since=2026-02-01&until=2026-01-01", "sinec=7d"} {
		if a := r.do(http.MethodGet, "/admin/usage?"+query, ""); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestErrorsHaveOneShape(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/admin/nothing", "", 404, "not_found"},
		{"PUT", "/admin/keys", "", 405, "method_not_allowed"},
		{"GET", "/admin/keys/nobody", "", 404, "not_found"},
		{"PATCH", "/admin/keys/nobody", `{"note":"x"}`, 404, "not_found"},
		{"DELETE", "/admin/keys/nobody", "", 404, "not_found"},
		{"GET", "/admin/limits/nobody", "", 404, "not_found"},
		{"DELETE", "/admin/requests/nothing", "", 404, "not_found"},
		{"POST", "/admin/keys", `{"id":"admin","user":"x"}`, 409, "already_exists"},
		{"POST", "/admin/keys", `{"id":"a"}`, 400, "invalid_request"},
		{"POST", "/admin/keys", `{"user":"a","user":"b"}`, 400, "invalid_request"},
		{"POST", "/admin/keys", `{"user":"a","colour":"red"}`, 400, "invalid_request"},
		{"POST", "/admin/keys", `[]`, 400, "invalid_request"},
		{"PATCH", "/admin/keys/admin", `{"id":"x"}`, 400, "invalid_request"},
		{"POST", "/admin/reload-keys?force=maybe", "", 400, "invalid_request"},
		{"POST", "/admin/clean-logs?days=x", "", 400, "invalid_request"},
		{"POST", "/admin/clean-logs?days=-1", "", 400, "invalid_request"},
		{"POST", "/admin/load-lora-adapter", `{}`, 400, "invalid_request"},
		{"POST", "/admin/load-lora-adapter", `{"lora_name":"x"}`, 503, "service_unavailable"},
	} {
		a := r.do(c.method, c.path, c.body)
		if a.status != c.status || a.code() != c.code || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.status, a.body)
		}
		if a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: no retry-after", c.method, c.path)
		}
	}
}

func TestKeysAndLimitsAreShownWithoutSecrets(t *testing.T) {
	r := newRig(t)
	secrets := []string{apikey.DefaultSecret}
	list := r.do(http.MethodGet, "/admin/keys", "").body
	limits := r.do(http.MethodGet, "/admin/limits/admin", "").body
	if strings.Contains(list, "sha256") || slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(list, s) }) {
		t.Errorf("a secret: %s", list)
	}
	if !strings.Contains(limits, `"quota_used":0`) || !strings.Contains(limits, `"concurrent":null`) {
		t.Errorf("limits: %s", limits)
	}
	if live := r.do(http.MethodGet, "/admin/requests", "").body; live != `{"requests":[]}`+"\n" {
		t.Errorf("live: %s", live)
	}
	if engines := r.do(http.MethodGet, "/admin/engine", "").body; !strings.Contains(engines, `"models":["tiny"]`) {
		t.Errorf("engines: %s", engines)
	}
}
