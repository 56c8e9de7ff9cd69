package admin_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"tollgate/internal/route"
)

// engines is the answer of GET /admin/engines.
type engines struct {
	Engines []struct {
		Address, Origin, By, State string
		Weight, Line               int
		Models                     []string
	}
	Lost, Warnings []string
}

func (r *rig) engines() engines {
	r.t.Helper()
	var got engines
	if err := json.Unmarshal([]byte(r.do(http.MethodGet, "/admin/engines", "").body), &got, json.MatchCaseInsensitiveNames(true)); err != nil {
		r.t.Fatal(err)
	}
	return got
}

func TestEnginesComeAndGo(t *testing.T) {
	r := newRig(t)
	if got := r.engines(); len(got.Engines) != 1 || got.Engines[0].Origin != "file" || got.Engines[0].State != "ready" || len(got.Engines[0].Models) == 0 {
		t.Fatalf("engines: %+v", got)
	}
	other := vllm(t)
	if a := r.do(http.MethodPost, "/admin/engines", `{"address":"`+other+`","weight":3}`, as, r.admin); a.status != http.StatusCreated {
		t.Fatalf("add: %d %s", a.status, a.body)
	}
	if a := r.do(http.MethodPost, "/admin/engines", `{"address":"`+other+`","weight":3}`); a.status != http.StatusOK {
		t.Errorf("add again: %d %s", a.status, a.body)
	}
	if got := r.engines().Engines[1]; got.Address != other || got.Weight != 3 || got.Origin != "api" {
		t.Errorf("added: %+v", got)
	}
	if a := r.do(http.MethodDelete, "/admin/engines/"+other, ""); a.status != http.StatusOK {
		t.Errorf("remove: %d %s", a.status, a.body)
	}
	if got := r.do(http.MethodGet, "/admin/audit", "").body; strings.Count(got, `"engine.add"`) != 1 || strings.Count(got, `"engine.remove"`) != 1 {
		t.Errorf("audit: %s", got)
	}
}

func TestWhatIsWrongWithAnEngineIsSaid(t *testing.T) {
	r := newRig(t)
	inFile := r.engines().Engines[0].Address
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{http.MethodPost, "/admin/engines", `{`, 400, "The body is JSON"},
		{http.MethodPost, "/admin/engines", `{}`, 400, "The body is JSON"},
		{http.MethodPost, "/admin/engines", `{"address":"10.0.0.2:1","wieght":2}`, 400, "The body is JSON"},
		{http.MethodPost, "/admin/engines", `{"address":"http://10.0.0.2:1"}`, 400, "is not HOST:PORT"},
		{http.MethodPost, "/admin/engines", `{"address":"10.0.0.2:1","weight":0}`, 400, "whole number from 1 to 1000"},
		{http.MethodPost, "/admin/engines", `{"address":"` + inFile + `"}`, 409, "configuration file names this engine"},
		{http.MethodDelete, "/admin/engines/" + inFile, "", 409, "configuration file names this engine"},
		{http.MethodDelete, "/admin/engines/10.9.9.9:1", "", 404, "No engine has this address"},
		{http.MethodDelete, "/admin/engines/x", "", 400, "is not HOST:PORT"},
	} {
		if a := r.do(c.method, c.path, c.body); a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.status, a.body)
		}
	}
	if n := len(r.engines().Engines); n != 1 {
		t.Errorf("%d engines afterwards", n)
	}
}

func TestALauncherNamesItsOwnEngineAlone(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"gpu-1", "gpu-2"} {
		r.add(`{"id":"` + id + `","user":"launcher"}`)
	}
	mine := vllm(t)
	put := func(key, client, address string) int {
		return r.do(http.MethodPost, "/admin/engines", `{"address":"`+address+`"}`, as, key, route.ClientHeader, client).status
	}
	if got := put("gpu-1", "127.0.0.1", mine); got != http.StatusCreated {
		t.Errorf("its own: %d", got)
	}
	for range 3 {
		if got := put("gpu-1", "127.0.0.1", mine); got != http.StatusOK {
			t.Errorf("again: %d", got)
		}
	}
	for name, got := range map[string]int{
		"of another host":      put("gpu-1", "127.0.0.1", "10.0.0.9:8000"),
		"by a name":            put("gpu-1", "127.0.0.1", "localhost:8000"),
		"of another key":       put("gpu-2", "127.0.0.1", mine),
		"without an address":   put("gpu-1", "", "127.0.0.1:9"),
		"removed by another":   r.do(http.MethodDelete, "/admin/engines/"+mine, "", as, "gpu-2").status,
		"to look at all":       r.do(http.MethodGet, "/admin/engines", "", as, "gpu-1").status,
		"removed what is file": r.do(http.MethodDelete, "/admin/engines/"+r.engines().Engines[0].Address, "", as, "gpu-1").status,
	} {
		if got != http.StatusForbidden && (name != "removed what is file" || got != http.StatusConflict) {
			t.Errorf("%s: %d", name, got)
		}
	}
	if got := r.engines().Engines[1]; got.Origin != "launcher" || got.By != "gpu-1" {
		t.Errorf("%+v", got)
	}
	if got := strings.Count(r.do(http.MethodGet, "/admin/audit", "").body, `"engine.add"`); got != 1 {
		t.Errorf("%d entries of the audit for one engine", got)
	}
	if a := r.do(http.MethodDelete, "/admin/engines/"+mine, "", as, "gpu-1"); a.status != http.StatusOK {
		t.Errorf("removed by itself: %d %s", a.status, a.body)
	}
}
