package admin_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tollgate/internal/apikey"
	"tollgate/internal/route"
)

// through sends a request as an Envoy does that is on this host, or is not.
func (r *rig) through(local bool, method, path string, header ...string) answer {
	r.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(""))
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.api.Edge(local).ServeHTTP(w, req)
	return answer{w.Code, w.Header(), w.Body.String()}
}

// A connection to the API proves nothing about its client, over either door.
func TestTheAPIAuthenticatesByItself(t *testing.T) {
	r := newRig(t)
	r.add(`{"id":"ann","user":"ann"}`)
	r.add(`{"id":"gpu","user":"launcher"}`)
	bearer := func(id string) []string { return []string{"Authorization", "Bearer " + r.secrets[id]} }
	forged := []string{"x-tollgate-key", r.admin, "x-tollgate-insider", "yes", "x-tollgate-user", "root", route.ClientHeader, "127.0.0.1"}
	for name, c := range map[string]struct {
		header []string
		own    int  // status of /v1/key
		admin  int  // of /admin/keys
		engine int  // of DELETE /admin/engines/x, which is a launcher's too
		all    bool // sees all of /health
	}{
		"nobody":           {nil, 401, 401, 401, false},
		"forged":           {forged, 401, 401, 401, false},
		"unknown":          {[]string{"Authorization", "Bearer sk-nobody-0123456789abcdef"}, 401, 401, 401, false},
		"a user":           {bearer("ann"), 200, 403, 403, false},
		"a user, forged":   {append(bearer("ann"), forged...), 200, 403, 403, false},
		"a user, api key":  {[]string{"X-Api-Key", r.secrets["ann"]}, 200, 403, 403, false},
		"two secrets":      {append(bearer("ann"), "X-Api-Key", r.secrets[r.admin]), 400, 400, 400, false},
		"two lines":        {append(bearer("ann"), bearer("ann")...), 400, 400, 400, false},
		"a launcher":       {bearer("gpu"), 403, 403, 404, false},
		"an administrator": {bearer(r.admin), 200, 200, 404, true},
	} {
		for _, local := range []bool{true, false} {
			own := r.through(local, http.MethodGet, "/v1/key", c.header...).status
			keys := r.through(local, http.MethodGet, "/admin/keys", c.header...).status
			engine := r.through(local, http.MethodDelete, "/admin/engines/10.9.9.9:1", c.header...).status
			if own != c.own || keys != c.admin || engine != c.engine {
				t.Errorf("%s, local %v: /v1/key %d, /admin/keys %d, /admin/engines %d; want %d, %d, %d", name, local, own, keys, engine, c.own, c.admin, c.engine)
			}
			if h := r.through(local, http.MethodGet, "/health", c.header...); h.status != http.StatusOK || strings.Contains(h.body, "target") != c.all {
				t.Errorf("%s, local %v: /health: %d %s", name, local, h.status, h.body)
			}
		}
	}
}

// The public default key is for clients of this machine. An Envoy on another host cannot
// know of any.
func TestTheDefaultKeyIsForThisHost(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		local bool
		said  string
		want  int
	}{
		"this machine":        {true, "yes", 200},
		"another machine":     {true, "no", 401},
		"not said":            {true, "", 401},
		"another host's word": {false, "yes", 401},
	} {
		header := []string{"Authorization", "Bearer " + apikey.DefaultSecret}
		if c.said != "" {
			header = append(header, route.LocalHeader, c.said)
		}
		if a := r.through(c.local, http.MethodGet, "/v1/key", header...); a.status != c.want {
			t.Errorf("%s: %d %s, want %d", name, a.status, a.body, c.want)
		}
		if h := r.through(c.local, http.MethodGet, "/health", header...); strings.Contains(h.body, "target") != (c.want == 200) {
			t.Errorf("%s: /health says %s", name, h.body)
		}
	}
}

// Without a page there is nothing to authenticate for.
func TestWhatIsNotThereNeedsNoKey(t *testing.T) {
	r := newRig(t)
	for line, want := range map[string]int{
		"GET /nowhere": 404, "POST /v1/chat/completions": 404, "PUT /admin/keys": 405, "POST /health": 405, "GET /admin/": 401, "GET /admin/nowhere": 401,
	} {
		method, path, _ := strings.Cut(line, " ")
		if a := r.through(false, method, path); a.status != want {
			t.Errorf("%s: %d %s, want %d", line, a.status, a.body, want)
		}
	}
}

// A command of this host has no key: it may do everything but see itself.
func TestACommandHasNoKeyOfItsOwn(t *testing.T) {
	r := newRig(t)
	if a := r.do(http.MethodGet, "/admin/keys", ""); a.status != http.StatusOK {
		t.Errorf("/admin/keys: %d", a.status)
	}
	for _, path := range []string{"/v1/key", "/v1/models", "/v1/models/tiny"} {
		if a := r.do(http.MethodGet, path, ""); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}
