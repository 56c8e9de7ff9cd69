package admin_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"tollgate/internal/route"
)

// An action is on record before it happens, with who asked and from where.
// What is asked twice, or is not known, is refused.
func TestAParameterIsGivenOnce(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/admin/audit?limit=1&limit=2", "/admin/usage?since=1d&since=2d", "/admin/ledger?nope=1"} {
		if a := r.do(http.MethodGet, path, ""); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

func TestAnActionIsOnRecord(t *testing.T) {
	r := newRig(t)
	r.add(`{"id":"boss","user":"admin"}`)
	a := r.do(http.MethodPost, "/admin/clean-logs?days=7", "", as, "boss", route.ClientHeader, "10.0.0.9")
	if a.status != http.StatusOK {
		t.Fatal(a.status, a.body)
	}
	var said struct {
		Entries []struct {
			Seq                       int64
			Who, From, Action, Target string
			After                     map[string]any
		}
	}
	a = r.do(http.MethodGet, "/admin/audit", "")
	if err := json.Unmarshal([]byte(a.body), &said); err != nil || len(said.Entries) != 1 {
		t.Fatalf("audit: %d %s", a.status, a.body)
	}
	e := said.Entries[0]
	if e.Who != "boss" || e.From != "10.0.0.9" || e.Action != "log.clean" || e.After["days"] != 7.0 {
		t.Errorf("entry: %+v", e)
	}
	if a := r.do(http.MethodGet, "/admin/audit/verify", ""); a.body != `{"entries":1,"message":"","ok":true}`+"\n" {
		t.Errorf("verify: %s", a.body)
	}
	for _, bad := range []string{"?limit=0", "?limit=x", "?before=0", "?who=boss"} {
		if a := r.do(http.MethodGet, "/admin/audit"+bad, ""); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, a.status)
		}
	}
}

// What cannot be recorded is not done.
func TestWhatCannotBeRecordedIsNotDone(t *testing.T) {
	r := newRig(t)
	if err := r.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/admin/clean-logs?days=7"} {
		if a := r.do(http.MethodPost, path, ""); a.status != http.StatusServiceUnavailable || a.code() != "service_unavailable" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
