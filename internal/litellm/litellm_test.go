package litellm_test

import (
	"crypto/sha256"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/litellm"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAConfiguration(t *testing.T) {
	got, err := litellm.ReadConfig(read(t, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	both := []litellm.Target{{Model: "Qwen/Qwen3-8B", Weight: 10}, {Model: "Qwen/Qwen3-8B-AWQ", Weight: 1}}
	want := &litellm.Config{
		Engines: []litellm.Engine{
			{Address: "10.0.0.2:8000"}, {Address: "10.0.0.3:8000"}, {Address: "10.0.0.4:8000"}, {Address: "10.0.0.3:8001"}, {Address: "10.0.0.5:8000"},
		},
		Models: []litellm.Model{
			{Name: "chat", Targets: both, Fallback: []string{"Qwen/Qwen3-0.6B"}},
			{Name: "gpt-4", Targets: both},
			{Name: "quiet", Targets: both},
		},
		Concurrent: 200, Notes: got.Notes,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	mustSay(t, got.Notes, "api_key", "rpm and tpm", "(gpt-4o): goes to another provider", "https", "os.environ/NAMED_BASE", "/models/under", "pattern",
		"lost: leads to nowhere", "gpt-4o, which is not here", "Qwen/Qwen3-0.6B is served under its own name", "routing_strategy", "num_retries",
		"drop_params", "request_timeout", "master_key", "database_url", "environment_variables", "timeout does not map")
}

func TestKeysOfTheRealPackage(t *testing.T) {
	got, notes, err := litellm.ReadKeys(read(t, "keys.json"), litellm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := func(v int64) *int64 { return &v }
	digest := func(name string) [32]byte { return sha256.Sum256([]byte("sk-canary-" + name + "-0123456789")) }
	want := []litellm.Key{
		{
			Digest: digest("alice"), ID: "alice-laptop", User: "alice", Enabled: true, Models: []string{"chat"}, Concurrent: n(4), Requests: n(60), Tokens: n(20000),
			Period: "total", ExpiresAt: time.Date(2036, 10, 29, 12, 0, 0, 0, time.UTC), Note: "from LiteLLM, team team-1",
		},
		{Digest: digest("plain"), User: "litellm", Enabled: true, Period: "total", Note: "from LiteLLM"},
		{Digest: digest("admin"), User: "litellm-admin", Enabled: true, Models: []string{}, Period: "total", Note: "from LiteLLM"},
		{Digest: digest("block"), ID: "alice-laptop-2", User: "bob", Period: "total", ExpiresAt: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), Note: "from LiteLLM"},
		{Digest: digest("spent"), User: "carol", Period: "total", Note: "from LiteLLM"},
		{Digest: digest("daily"), User: "dave", Enabled: true, Models: []string{}, Quota: n(1000), Period: "day", Note: "from LiteLLM"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	mustSay(t, notes, "budget of 10 dollars", `becomes "litellm-admin"`, "models of its team", "allowed_routes", "spent its budget", "aliases does not map", "logins are left out")

	got, _, err = litellm.ReadKeys(read(t, "keys.json"), litellm.Options{TokensPerDollar: 1000})
	if err != nil || got[0].Quota == nil || *got[0].Quota != 10_000 || got[0].Period != "month" {
		t.Errorf("a budget with a price: %+v, %v", got, err)
	}
}

// TestOtherForms: an array, and JSON lines as PostgreSQL writes rows.
func TestOtherForms(t *testing.T) {
	const row = `{"token":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","user_id":"x","expires":"2027-01-01T00:00:00.123","aliases":{},"tpm_limit":5}`
	for name, text := range map[string]string{
		"array": "[" + row + "]", "lines": row + "\n" + row + "\n", "one": row, "old secret": `{"token":"sk-0123456789abcdef01","user_id":"x","expires":"2027-01-01","tpm_limit":5}`,
	} {
		got, _, err := litellm.ReadKeys([]byte(text), litellm.Options{})
		if err != nil || len(got) != 1 || got[0].User != "x" || *got[0].Tokens != 5 || got[0].ExpiresAt.Year() != 2027 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "no keys",
		`{"keys":[]}`:              "no keys",
		`["9f86"]`:                 "return_full_object",
		`[{"token":"zz"}]`:         "no SHA-256",
		`[{"token":"scrypt:abc"}]`: "no SHA-256",
		`[{"token":7}]`:            "another kind",
		`[3]`:                      "no object",
		`{"token":`:                "no JSON",
		`[{"token":"sk-canary-1","expires":"soon"}]`: "expires",
	} {
		_, _, err := litellm.ReadKeys([]byte(text), litellm.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{"": "no model_list", "model_list: 3": "", "a: sk-canary: b": "", "model_list: [}": ""} {
		_, err := litellm.ReadConfig([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// mustSay looks for every text, and for secrets.
func mustSay(t *testing.T, notes []litellm.Note, texts ...string) {
	t.Helper()
	var all strings.Builder
	for _, n := range notes {
		all.WriteString(n.Where + ": " + n.Text + "\n")
	}
	for _, text := range texts {
		if !strings.Contains(all.String(), text) {
			t.Errorf("no note says %q", text)
		}
	}
	if strings.Contains(all.String(), "sk-") {
		t.Errorf("a secret:\n%s", &all)
	}
	if t.Failed() {
		t.Log(all.String())
	}
}

func FuzzReadKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"token":"sk-1","models":["*"],"max_budget":1e300,"expires":"2027-01-01"}]}`), int64(1000))
	f.Add([]byte(`[[[]]]`), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, price int64) {
		keys, _, err := litellm.ReadKeys(data, litellm.Options{TokensPerDollar: max(price, 0)})
		if err != nil {
			return
		}
		for _, k := range keys {
			if k.User == "admin" || k.User == "launcher" || k.User == "" || k.Quota != nil && (*k.Quota > 1<<53) {
				t.Errorf("%+v", k)
			}
		}
	})
}

func FuzzReadConfig(f *testing.F) {
	f.Add([]byte("model_list: [{model_name: a, litellm_params: {model: openai/b, api_base: 'http://h:1'}}]\nrouter_settings: {fallbacks: [{a: [b]}], model_group_alias: {x: a}}"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = litellm.ReadConfig(data) })
}
