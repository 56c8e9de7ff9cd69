package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/apikey"
)

// cli runs the command in a folder of its own.
type cli struct {
	t    *testing.T
	dir  string
	env  map[string]string
	keys string // the key file
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	return &cli{t: t, dir: dir, env: map[string]string{}, keys: filepath.Join(dir, "config", "api_keys.json")}
}

// run demands the exit status and returns what was printed.
func (c *cli) run(want int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	var out, errs bytes.Buffer
	got := run(args, func(name string) string { return c.env[name] }, strings.NewReader(""), &out, &errs)
	if got != want {
		c.t.Errorf("tollgate %s: got status %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, want, &out, &errs)
	}
	return out.String(), errs.String()
}

func (c *cli) write(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// ring is the key file as a service reads it.
func (c *cli) ring() *apikey.Ring {
	c.t.Helper()
	k, err := apikey.Open(c.keys, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return k.Current()
}

func contains(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, got)
		}
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	c := newCLI(t)
	out, _ := c.run(0, "--help")
	contains(t, "help", out, "serve", "keys add", "keys rotate", "usage", "ledger verify", "envoy config", "config check", "CONFIG_FILE")
	for _, args := range [][]string{{"keys", "add"}, {"keys", "disable"}, {"keys", "rotate"}, {"keys", "remove"}, {"keys", "list"}, {"config", "check"}} {
		out, _ := c.run(0, append(args, "--help")...)
		contains(t, strings.Join(args, " "), out, "  tollgate "+strings.Join(args, " "))
	}
	out, _ = c.run(0, "--version")
	contains(t, "version", out, "tollgate ")
	if _, err := os.Stat("config"); err == nil {
		t.Error("asking for help wrote files")
	}
}

func TestWrongUsageIsStatus2(t *testing.T) {
	c := newCLI(t)
	for _, args := range [][]string{
		{},
		{"nonsense"},
		{"keys"},
		{"keys", "add"},
		{"keys", "add", "--user", "x", "--quota", "many"},
		{"keys", "add", "--user", "x", "--quota", "-5"},
		{"keys", "add", "--user", "x", "--quota-period", "week"},
		{"keys", "add", "--user", "x", "--expires-at", "soon"},
		{"keys", "add", "--user", "x", "--expires-at", "2001-01-01"},
		{"keys", "add", "--user", "x", "--id", "sk-secret"},
		{"keys", "add", "--user", "x", "--id", "default"},
		{"keys", "rotate", "default", "--grace=-1h"},
		{"keys", "rotate", "default", "--grace=721h"},
		{"keys", "add", "--user", "x", "--quota=-1"},
		{"keys", "add", "--user", "x", "--concurrent=-1"},
		{"keys", "add", "--user", "Admin"},
		{"keys", "add", "--user", "admin "},
		{"keys", "disable", "sk-secret"},
		{"keys", "disable"},
		{"config", "check", "--config", "none.yaml"},
		{"keys", "list", "--config", "none.yaml"},
		{"usage", "--no-such-flag"},
	} {
		out, errs := c.run(2, args...)
		if strings.Contains(errs, "sk-secret") || strings.Contains(errs, "goroutine") {
			t.Errorf("%v: got %s", args, errs)
		}
		if len(args) > 0 && (out != "" || errs == "") {
			t.Errorf("%v: got %q on stdout and %q on stderr, want the mistake on stderr", args, out, errs)
		}
	}
}

func TestKeyLivesThroughItsCommands(t *testing.T) {
	c := newCLI(t)
	out, errs := c.run(0, "keys", "add", "--user", "alice", "--id", "laptop", "--quota", "5000", "--quota-period", "month",
		"--model", "qwen", "--model", "llama", "--concurrent", "4", "--tokens-per-minute", "unlimited", "--expires-at", "90d", "--note", "a note")
	secret := strings.TrimSpace(out)
	if !regexp.MustCompile(`^sk-[0-9A-Za-z]{32}$`).MatchString(secret) {
		t.Fatalf("stdout: got %d bytes, want one secret", len(out))
	}
	contains(t, "stderr", errs, "admin key, shown once: sk-", "added key laptop", "only time")
	if strings.Contains(errs, secret) {
		t.Error("the secret is on stderr too")
	}
	k, ok := c.ring().Lookup(secret, time.Now())
	if !ok {
		t.Fatal("the new key does not open anything")
	}
	four, unlimited := int64(4), int64(-1)
	want := &apikey.Key{
		ID: "laptop", User: "alice", Quota: 5000, QuotaPeriod: apikey.Month, Enabled: true, Models: []string{"qwen", "llama"},
		Concurrent: &four, TokensPerMinute: &unlimited, ExpiresAt: k.ExpiresAt, Note: "a note",
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Errorf("key (-want +got):\n%s", diff)
	}
	if left := time.Until(k.ExpiresAt); left < 89*24*time.Hour || left > 91*24*time.Hour {
		t.Errorf("expires in %v, want 90 days", left)
	}
}

func TestStateAndSecretOfAKeyChangeByCommand(t *testing.T) {
	c := newCLI(t)
	out, _ := c.run(0, "keys", "add", "--user", "alice", "--id", "laptop")
	secret := strings.TrimSpace(out)
	c.run(0, "keys", "disable", "laptop", "--drain")
	if k, _ := c.ring().ByID("laptop"); k.Enabled || !k.Drain {
		t.Errorf("drained: got %+v", k)
	}
	c.run(0, "keys", "enable", "laptop")
	if _, ok := c.ring().Lookup(secret, time.Now()); !ok {
		t.Error("enabled: the key does not pass")
	}
	out, _ = c.run(0, "keys", "rotate", "laptop", "--grace", "1h")
	next := strings.TrimSpace(out)
	for name, s := range map[string]string{"new": next, "old": secret} {
		if k, ok := c.ring().Lookup(s, time.Now()); !ok || k.ID != "laptop" {
			t.Errorf("rotated: the %s secret does not open the key", name)
		}
	}
	if _, ok := c.ring().Lookup(secret, time.Now().Add(2*time.Hour)); ok {
		t.Error("rotated: the old secret outlives its grace")
	}
	c.run(0, "keys", "disable", "laptop")
	c.run(0, "keys", "remove", "laptop")
	if _, ok := c.ring().ByID("laptop"); ok {
		t.Error("removed: the key is there")
	}
}

func TestCommandsOnAnUnknownKeyFailAndLeaveNoConfig(t *testing.T) {
	c := newCLI(t)
	c.write("config/api_keys.json", "[]")
	for _, verb := range []string{"enable", "disable", "rotate", "remove"} {
		_, errs := c.run(1, "keys", verb, "laptop")
		contains(t, verb+" of an unknown key", errs, `"laptop"`, "no key has this id")
	}
	if _, err := os.Stat(filepath.Join(c.dir, "config", "config.yaml")); err == nil {
		t.Error("the commands left a configuration file behind, which would keep the launcher from writing its own")
	}
}

func TestListShowsKeysWithoutSecrets(t *testing.T) {
	c := newCLI(t)
	c.write("config/api_keys.json", `[
		{"key": "sk-default-key-change-me", "id": "default", "user": "default"},
		{"key": "sk-plain-secret", "id": "a", "user": "alice", "quota": 10, "quota_period": "day", "models": [], "limits": {"concurrent": 2, "tokens_per_minute": null}},
		{"key": "sk-b", "id": "b", "user": "bob", "enabled": false, "drain": true, "expires_at": "2020-01-01T00:00:00Z", "note": "gone"},
		{"key": "sk-c", "id": "c", "expires_at": "2020-01-01T00:00:00Z"}
	]`)
	out, _ := c.run(0, "keys", "list")
	want := `ID       USER     STATE             QUOTA   MODELS  LIMITS                               EXPIRES               NOTE
default  default  void (public)     -       all     -                                    -                     -
a        alice    enabled           10/day  none    concurrent=2 tokens/min=unlimited  -                     -
b        bob      disabled (drain)  -       all     -                                    2020-01-01T00:00:00Z  gone
c        -        expired           -       all     -                                    2020-01-01T00:00:00Z  -
`
	squeeze := regexp.MustCompile(` +`)
	if diff := cmp.Diff(squeeze.ReplaceAllString(want, " "), squeeze.ReplaceAllString(out, " ")); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	out, _ = c.run(0, "keys", "list", "--json")
	var got []map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got) != 4 {
		t.Fatalf("JSON: got %d entries, %v", len(got), err)
	}
	if diff := cmp.Diff(map[string]any{
		"id": "a", "user": "alice", "enabled": true, "quota": 10.0, "quota_period": "day", "models": []any{},
		"limits": map[string]any{"concurrent": 2.0, "tokens_per_minute": nil},
	}, got[1]); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	if strings.Contains(out, "sk-") || strings.Contains(out, "sha256") {
		t.Errorf("the list shows secrets:\n%s", out)
	}
}

func TestBrokenKeyFileIsReportedAndNotEdited(t *testing.T) {
	c := newCLI(t)
	const text = "[\n  {\"key\": \"sk-secret\", \"usr\": \"x\"}\n]"
	c.write("config/api_keys.json", text)
	for _, args := range [][]string{{"keys", "list"}, {"keys", "add", "--user", "x"}, {"keys", "remove", "x"}, {"config", "check"}} {
		_, errs := c.run(2, args...)
		contains(t, strings.Join(args, " "), errs, "config/api_keys.json:2:31: entry 1: ", `"usr"`)
		if strings.Contains(errs, "sk-secret") {
			t.Errorf("%v shows a secret", args)
		}
	}
	if got, _ := os.ReadFile(c.keys); string(got) != text {
		t.Errorf("the file is now %q", got)
	}
}

func TestConfigCheck(t *testing.T) {
	c := newCLI(t)
	out, _ := c.run(0, "config", "check")
	contains(t, "without files", out, "ok: config/config.yaml (missing", "config/api_keys.json (missing")

	c.run(0, "keys", "add", "--user", "x")
	path := c.write("other.yaml", "listen: 0.0.0.0:8080\nauth: {api_keys_file: "+c.keys+"}\n")
	c.env["CONFIG_FILE"] = path
	out, errs := c.run(0, "config", "check")
	contains(t, "good files", out, "ok: "+path, "3 keys, 3 enabled")
	contains(t, "good files", errs, "warning: listen 0.0.0.0:8080 serves a network without TLS", "warning: the public default key", "opens nothing")

	path = c.write("bad.yaml", "listen: nowhere\nlog:\n  levl: info\n")
	out, errs = c.run(2, "config", "check", "--config", path)
	contains(t, "bad config", errs, path+":1:9: listen: ", path+":3:3: log.levl: is not a known key; did you mean", "2 mistakes")
	if out != "" {
		t.Errorf("bad config: stdout %q", out)
	}
}

func TestServiceWritesAMissingConfigAndLookingDoesNot(t *testing.T) {
	c := newCLI(t)
	var errs bytes.Buffer
	env := &Env{Ctx: t.Context(), Getenv: func(string) string { return "" }, Stderr: &errs}
	if _, err := env.Config(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "config")); err == nil {
		t.Error("Config wrote something")
	}
	for range 2 {
		cfg, err := env.ConfigOrCreate()
		if err != nil || cfg.VLLM.AutoStart {
			t.Fatalf("got %+v, %v", cfg, err)
		}
	}
	if got, want := errs.String(), "wrote config/config.yaml with the defaults\n"; got != want {
		t.Errorf("stderr: got %q, want %q once", got, want)
	}
	env.ConfigFlag = "none.yaml"
	if _, err := env.Config(); status(err) != exitMisconfigured {
		t.Errorf("a named file that is missing: got %v, want status 2", err)
	}
}
