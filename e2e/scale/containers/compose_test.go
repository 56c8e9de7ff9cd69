//go:build scale

package containers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// edge is where docker-compose.yaml publishes Envoy.
const edge = "http://127.0.0.1:8080"

// TestCompose brings the project up as README.md says, sends five streams, and
// compares the report with what the engine has made. What it keeps in volumes is
// there after a down and an up.
func TestCompose(t *testing.T) {
	e := shared
	e.images(t)
	up(t, e)
	key := newKey(t, e)
	metered(t, e, key, 5)
	if n := scraped(t, e, "tollgate_meters_connected"); n != "1" {
		t.Errorf("meters connected: %s, the one inside Envoy was expected", n)
	}
	e.do(t, "docker-compose", "down")
	up(t, e)
	metered(t, e, key, 5) // the engine has counted from 0 again, the ledger has all ten
	if got := usage(t, e); got.Requests != 10 {
		t.Errorf("after a down and an up the ledger has %d requests, 10 were made", got.Requests)
	}
}

// TestComposeProfiles adds Redis and Prometheus. Grafana is left out: there is no
// program to make a stand-in of.
func TestComposeProfiles(t *testing.T) {
	e := shared
	e.images(t)
	text, err := os.ReadFile(filepath.Join(root, "deploy/compose/config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	with := strings.Replace(string(text), "kind: memory", "kind: redis ", 1)
	if err := os.WriteFile(config, []byte(with), 0o644); err != nil || with == string(text) {
		t.Fatalf("%v, or the file has no kind: memory", err)
	}
	t.Setenv("TOLLGATE_CONFIG", config)
	up(t, e, "--profile", "redis", "--profile", "monitoring")
	metered(t, e, newKey(t, e), 5)
	if said := e.do(t, "docker-compose", "--profile", "redis", "logs", "tollgate"); strings.Contains(said, "waiting for redis") {
		t.Errorf("tollgate has no Redis:\n%s", last(said))
	}
	prometheus := "http://" + e.address(t, "tollgate_prometheus_1") + ":9090"
	stack.Eventually(t, time.Minute, "Prometheus to have scraped tollgate", func() bool {
		return strings.Contains(query(prometheus, `up{job="tollgate"}`), `,"1"]`)
	})
	var rules struct {
		Data struct{ Groups []struct{ Rules []any } }
	}
	resp, err := http.Get(prometheus + "/api/v1/rules")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&rules); err != nil || len(rules.Data.Groups) == 0 {
		t.Errorf("Prometheus has no rules: %v", err)
	}
}

func query(prometheus, what string) string {
	resp, err := http.Get(prometheus + "/api/v1/query?query=" + strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", "=", "%3D").Replace(what))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// up starts the project and waits until its edge is healthy. The test's end removes
// it with all it has.
func up(t *testing.T, e *engine, profiles ...string) {
	t.Helper()
	services := []string{"tollgate", "bootstrap", "envoy", "launcher"}
	if len(profiles) > 0 {
		services = append(services, "redis", "prometheus")
	}
	t.Cleanup(func() {
		e.do(t, "docker-compose", append(slices.Clone(profiles), "down", "--volumes", "--remove-orphans")...)
	})
	began := time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := e.run("docker-compose", append(slices.Clone(profiles), "logs", "--no-color", "--tail", "8")...)
			t.Log(said)
		}
	})
	e.do(t, "docker-compose", append(slices.Clone(profiles), append([]string{"up", "--detach"}, services...)...)...)
	stack.Eventually(t, time.Minute, "the edge to be healthy", func() bool {
		resp, err := http.Get(edge + "/health")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	t.Logf("up after %v", time.Since(began).Round(100*time.Millisecond))
}

// newKey makes a key as the head of docker-compose.yaml says.
func newKey(t *testing.T, e *engine) string {
	t.Helper()
	out := e.do(t, "docker-compose", "run", "--rm", "--no-deps", "-T", "tollgate", "keys", "add", "--user", "me")
	key := regexp.MustCompile(`\bsk-\S+`).FindString(out)
	if key == "" {
		t.Fatalf("no key in %q", out)
	}
	waitForKey(t, edge, key)
	return key
}

// sums are tokens and requests.
type sums struct {
	Requests int64 `json:"requests"`
	Prompt   int64 `json:"prompt_tokens"`
	Output   int64 `json:"completion_tokens"`
}

func usage(t *testing.T, e *engine) sums {
	t.Helper()
	return usageOf(t, e.do(t, "docker-compose", "exec", "-T", "tollgate", "tollgate", "usage", "--by", "user", "--format", "json"))
}

func usageOf(t *testing.T, report string) (all sums) {
	t.Helper()
	var groups []sums
	if err := json.Unmarshal([]byte(report), &groups); err != nil {
		t.Fatalf("%v: %s", err, report)
	}
	for _, g := range groups {
		all.Requests, all.Prompt, all.Output = all.Requests+g.Requests, all.Prompt+g.Prompt, all.Output+g.Output
	}
	return all
}

// metered sends streams and holds what the ledger has of them to what the simulated
// engine has made.
func metered(t *testing.T, e *engine, key string, streams int) {
	t.Helper()
	before := usage(t, e)
	truth := func() sums { return truthAt(t, "http://"+e.address(t, "tollgate_launcher_1")+":8000") }
	made := truth()
	for i := range streams {
		stream(t, edge, key, 5+i)
	}
	after, now := usage(t, e), truth()
	got := sums{after.Requests - before.Requests, after.Prompt - before.Prompt, after.Output - before.Output}
	want := sums{now.Requests - made.Requests, now.Prompt - made.Prompt, now.Output - made.Output}
	if got != want || got.Requests != int64(streams) || got.Output == 0 {
		t.Errorf("the ledger has %+v, the engine made %+v", got, want)
	}
	t.Logf("ledger %+v, engine %+v", got, want)
}

// stream sends one streamed request and reads it to its end.
func stream(t *testing.T, url, key string, tokens int) {
	t.Helper()
	body := fmt.Sprintf(`{"model":"simulated","stream":true,"max_tokens":%d,"messages":[{"role":"user","content":"count for me"}]}`, tokens)
	req, err := http.NewRequest(http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.HasSuffix(bytes.TrimSpace(answer), []byte("data: [DONE]")) {
		t.Fatalf("stream: %v, %s, %s", err, resp.Status, answer)
	}
}

// truthAt is what a simulated engine has made of whole answers.
func truthAt(t *testing.T, engine string) sums {
	t.Helper()
	resp, err := http.Get(engine + "/sim/truth")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return truthOf(t, resp.Body)
}

func truthOf(t *testing.T, page io.Reader) (all sums) {
	t.Helper()
	var doc struct {
		Requests []struct {
			Prompt    int64   `json:"prompt_tokens"`
			Generated []int64 `json:"generated"`
		} `json:"requests"`
	}
	if err := json.NewDecoder(page).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	for _, r := range doc.Requests {
		all.Requests++
		all.Prompt += r.Prompt
		for _, n := range r.Generated {
			all.Output += n
		}
	}
	return all
}

// scraped is the value of a metric without labels, as tollgate's page has it.
func scraped(t *testing.T, e *engine, name string) string {
	t.Helper()
	page := e.do(t, "docker-compose", "exec", "-T", "tollgate", "wget", "-q", "-O", "-", "http://127.0.0.1:9464/metrics")
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(page)
	if found == nil {
		return "missing"
	}
	return found[1]
}
