package admin_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
)

// TestModelsAreThoseThatTheKeyMayUse, aliases included, as a list and one by one.
func TestModelsAreThoseThatTheKeyMayUse(t *testing.T) { //nolint:gocyclo // one story, told in order
	r := newRig(t)
	for _, c := range []struct {
		id     string
		models []string
		list   []string
		one    map[string]string // the name asked for, and the nearest of a 404 ("-" for none); "" is found
	}{
		{"all", nil, []string{"chat", "claude-*", "tiny"}, map[string]string{
			"chat": "", "tiny": "", "claude-sonnet-4": "", "Tiny": "tiny", "away": "-", "claud": "-", "publisher%2Fchat": "chat", "publisher/chat": "chat",
		}},
		{"alias", []string{"chat"}, []string{"chat"}, map[string]string{"chat": "", "tiny": "-", "Chat": "chat", "claude-x": "-", "chat%20": "chat"}},
		{"pattern", []string{"claude-*"}, []string{"claude-*"}, map[string]string{"claude-x": "", "claude-*": "", "claude-%2A": "", "chat": "-"}},
		{"spelt", []string{"claude-x", "tiny"}, []string{"tiny", "claude-x"}, map[string]string{"claude-x": "", "claude-y": "claude-x"}},
		{"none", []string{}, nil, map[string]string{"tiny": "-"}},
	} {
		if err := r.keys.Edit(audit.Editor{}, func(f *apikey.File) error {
			made, err := f.Add(apikey.Info{ID: c.id, User: "ann", Models: c.models, Enabled: true, QuotaPeriod: apikey.Total}.Fields())
			r.secrets[c.id] = made.Secret
			return err
		}); err != nil {
			t.Fatal(err)
		}
		var got []string
		var page struct{ Data []struct{ ID string } }
		a := r.do(http.MethodGet, "/v1/models", "", as, c.id)
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", c.id, a.status, a.body)
		}
		for _, m := range page.Data {
			got = append(got, m.ID)
		}
		if diff := cmp.Diff(c.list, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.id, diff)
		}
		for name, nearest := range c.one {
			a := r.do(http.MethodGet, "/v1/models/"+name, "", as, c.id)
			switch {
			case nearest == "":
				if a.status != http.StatusOK {
					t.Errorf("%s asks for %s: %d %s", c.id, name, a.status, a.body)
				}
			case a.status != http.StatusNotFound || a.code() != "model_not_found":
				t.Errorf("%s asks for %s: %d %s", c.id, name, a.status, a.body)
			case nearest == "-" && strings.Contains(a.body, "did you mean") || nearest != "-" && !strings.Contains(a.body, "'"+nearest+"'"):
				t.Errorf("%s asks for %s: want %s named: %s", c.id, name, nearest, a.body)
			}
		}
	}
	a := r.do(http.MethodGet, "/v1/models/chat", "", as, "alias")
	if want := `{"id":"chat","object":"model","created":0,"owned_by":"tollgate","root":"chat","parent":null,"max_model_len":100}`; a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	a = r.do(http.MethodGet, "/v1/models/claude-x", "", as, "pattern", "Anthropic-Version", "2023-06-01")
	if want := `{"type":"model","id":"claude-x","display_name":"claude-x","created_at":"1970-01-01T00:00:00Z"}`; a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
}
