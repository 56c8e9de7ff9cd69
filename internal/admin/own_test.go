package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// settled writes one finished request of a key.
func (r *rig) settled(key string, n int, tokens int64) {
	r.t.Helper()
	lease := fmt.Sprintf("%s%028x", map[bool]string{true: "aaaa", false: "bbbb"}[key == "ann"], n)
	now := time.Now()
	if err := r.ledger.Begin(r.t.Context(), ledger.Intent{
		LeaseID: lease, RequestID: key + fmt.Sprint(n), KeyID: key, User: key, Model: "tiny", Endpoint: "/v1/completions",
		Engine: "10.9.8.7:8000", N: 1, Prompts: 1, StartedAt: now,
	}); err != nil {
		r.t.Fatal(err)
	}
	counts := usage.None()
	counts.Prompt, counts.Completion = 1, tokens
	if _, _, err := r.ledger.Settle(r.t.Context(), ledger.Settlement{
		LeaseID: lease, Reason: ledger.Complete, Quality: ledger.Exact, Counts: counts, Status: 200, EndedAt: now,
	}); err != nil {
		r.t.Fatal(err)
	}
}

// Every key sees itself and nothing of another one, whatever it asks for.
func TestAKeySeesItselfAlone(t *testing.T) { //nolint:gocyclo // one story, told in order
	r := newRig(t)
	for _, id := range []string{"ann", "bob"} {
		r.add(fmt.Sprintf(`{"id":%q,"user":%q,"quota":100,"quota_period":"day","note":"owes us lunch","limits":{"concurrent":3}}`, id, id))
		for i := range 3 {
			r.settled(id, i, int64(10*(i+1)))
		}
	}
	for _, id := range []string{"ann", "bob"} {
		other := map[string]string{"ann": "bob", "bob": "ann"}[id]
		for _, path := range []string{"/v1/key", "/v1/usage", "/v1/usage?by=model&since=1d", "/v1/requests", "/v1/requests?limit=1"} {
			a := r.do(http.MethodGet, path, "", as, id)
			if a.status != http.StatusOK || !strings.Contains(a.body, `"`+id+`"`) {
				t.Errorf("%s of %s: %d %s", path, id, a.status, a.body)
			}
			for _, secret := range []string{other, "lunch", "10.9.8.7"} {
				if strings.Contains(a.body, secret) {
					t.Errorf("%s of %s tells %q: %s", path, id, secret, a.body)
				}
			}
			if a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s may be cached", path)
			}
		}
		for _, path := range []string{
			"/v1/key?id=" + other, "/v1/usage?key=" + other, "/v1/usage?by=key", "/v1/usage?by=user", "/v1/requests?key=" + other,
			"/v1/requests?user=" + other, "/v1/requests?request_id=" + other + "0", "/v1/requests?limit=0", "/v1/requests?cursor=x",
		} {
			if a := r.do(http.MethodGet, path, "", as, id); a.status != http.StatusBadRequest || a.code() != "invalid_request" {
				t.Errorf("%s of %s: %d %s, want a 400", path, id, a.status, a.body)
			}
		}
		// The cursor of the other's page leads into the own rows.
		var page struct {
			Next string `json:"next_cursor"`
		}
		a := r.do(http.MethodGet, "/v1/requests?limit=1", "", as, other)
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || page.Next == "" {
			t.Fatalf("page of %s: %s", other, a.body)
		}
		if a := r.do(http.MethodGet, "/v1/requests?cursor="+page.Next, "", as, id); a.status != http.StatusOK || strings.Contains(a.body, other) {
			t.Errorf("%s with the cursor of %s: %d %s", id, other, a.status, a.body)
		}
	}
	if a := r.do(http.MethodGet, "/v1/key", "", as, "gone"); a.status != http.StatusUnauthorized {
		t.Errorf("a key that has gone: %d, want 401", a.status)
	}
}

func TestAKeySeesWhatIsLeft(t *testing.T) {
	r := newRig(t)
	r.add(`{"id":"ann","user":"ann","quota":100,"quota_period":"day","limits":{"concurrent":3}}`)
	r.settled("ann", 1, 89)
	var own struct {
		Effective map[string]*int64 `json:"effective_limits"`
		Left      *int64            `json:"quota_remaining"`
		Resets    *time.Time        `json:"quota_resets_at"`
		Models    []string          `json:"models"`
	}
	a := r.do(http.MethodGet, "/v1/key", "", as, "ann")
	if err := json.Unmarshal([]byte(a.body), &own); err != nil {
		t.Fatal(err, a.body)
	}
	if own.Left == nil || *own.Left != 10 || own.Resets == nil || !own.Resets.After(time.Now()) {
		t.Errorf("quota left %v, resets at %v; want 10 and a time to come", own.Left, own.Resets)
	}
	if c := own.Effective["concurrent"]; c == nil || *c != 3 || own.Effective["tokens_per_minute"] != nil {
		t.Errorf("limits %v, want 3 slots and no limit of tokens", own.Effective)
	}
}

// Administrators page through all rows, and see all keys' limits at once.
func TestRowsAndLimitsOfEverybody(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"ann", "bob"} {
		r.add(fmt.Sprintf(`{"id":%q,"user":%q}`, id, id))
		for i := range 5 {
			r.settled(id, i, 1)
		}
	}
	seen, cursor := map[string]bool{}, ""
	for {
		var page struct {
			Requests []struct {
				LeaseID string `json:"lease_id"`
				Engine  string `json:"engine"`
			} `json:"requests"`
			Next *string `json:"next_cursor"`
		}
		a := r.do(http.MethodGet, "/admin/ledger?limit=3&cursor="+cursor, "")
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != http.StatusOK {
			t.Fatal(err, a.status, a.body)
		}
		for _, row := range page.Requests {
			if seen[row.LeaseID] || row.Engine == "" {
				t.Errorf("row %s twice or without its engine", row.LeaseID)
			}
			seen[row.LeaseID] = true
		}
		if page.Next == nil {
			break
		}
		cursor = *page.Next
	}
	if len(seen) != 10 {
		t.Errorf("%d rows, want 10", len(seen))
	}
	a := r.do(http.MethodGet, "/admin/limits", "")
	if a.status != http.StatusOK || !strings.Contains(a.body, `"key_id":"ann"`) || !strings.Contains(a.body, `"key_id":"bob"`) {
		t.Errorf("limits of all: %d %s", a.status, a.body)
	}
}
