//go:build scale

package containers

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"tollgate/e2e/stack"
)

// TestPod runs the pod of the Helm chart as a kubelet does, with what the engine has
// for it: the containers in their order, on a read-only root, as the user that is
// named, without a capability, with the volumes and their owners, probes, and the
// preStop hook. It answers metered streams; a stream that runs when the pod is deleted
// comes to its end; the ledger stays in the claim, the Job that prints it finds it
// whole, and a new pod goes on with it.
func TestPod(t *testing.T) {
	e := shared
	e.images(t)
	claim := t.TempDir()
	p := startPod(t, e, claim, nil, "--set", "simulatedEngine.enabled=true,drain.delaySeconds=2")
	edge := "http://" + p.ip + ":8080"
	key := strings.TrimSpace(p.exec(t, "tollgate", "tollgate", "keys", "add", "--user", "me"))
	waitForKey(t, edge, key)
	for i := range 5 {
		stream(t, edge, key, 5+i)
	}
	if got, want := p.usage(t), p.truth(t); got != want || got.Requests != 5 {
		t.Errorf("the ledger has %+v, the engine made %+v", got, want)
	}
	if page := p.exec(t, "tollgate", "wget", "-q", "-O", "-", "http://127.0.0.1:9464/metrics"); !strings.Contains(page, "\ntollgate_meters_connected 1\n") {
		t.Error("the meter inside Envoy is not connected")
	}
	slow := slowStream(t, edge, key)
	p.stop(t)
	if end := <-slow; !strings.HasSuffix(end, "data: [DONE]") {
		t.Errorf("the stream that ran when the pod was deleted ended with %q", last(end))
	}
	if got := exported(t, e, claim); got != 6 {
		t.Errorf("the claim has %d requests, 6 were made", got)
	}
	p = startPod(t, e, claim, nil, "--set", "simulatedEngine.enabled=true,drain.delaySeconds=0")
	stream(t, "http://"+p.ip+":8080", key, 3)
	if got := p.usage(t); got.Requests != 7 {
		t.Errorf("after a new start the ledger has %d requests, 7 were made", got.Requests)
	}
	p.stop(t)
}

func (p *pod) usage(t *testing.T) sums {
	t.Helper()
	return usageOf(t, p.exec(t, "tollgate", "tollgate", "usage", "--by", "user", "--format", "json"))
}

// truth is what the simulated engine has made, which listens for the pod alone.
func (p *pod) truth(t *testing.T) sums {
	t.Helper()
	return truthOf(t, strings.NewReader(p.exec(t, "tollgate", "wget", "-q", "-O", "-", "http://127.0.0.1:8000/sim/truth")))
}

// slowStream opens a stream of a few seconds and gives its whole answer when it ends.
func slowStream(t *testing.T, edge, key string) <-chan string {
	t.Helper()
	body := `{"model":"simulated","stream":true,"max_tokens":40,"messages":[{"role":"user","content":"slowly"}],"sim":{"delay_ms":150}}`
	req, err := http.NewRequest(http.MethodPost, edge+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // closed by the goroutine that reads it
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", err, resp)
	}
	whole := make(chan string, 1)
	go func() {
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			answer = append(answer, err.Error()...)
		}
		whole <- strings.TrimSpace(string(answer))
	}()
	return whole
}

// exported is the number of rows that the Job of deploy/kustomize/ledger-export prints
// of a claim that no pod uses.
func exported(t *testing.T, e *engine, claim string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/kustomize/ledger-export/job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var job manifest
	if err := yaml.Unmarshal(text, &job); err != nil {
		t.Fatal(err)
	}
	p := &pod{e: e, spec: job.Spec.Template.Spec, volumes: map[string]string{"state": claim}}
	out := e.do(t, "docker", p.args(p.spec.Containers[0], "--rm")...)
	rows := 0
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Fatalf("exported: %s", line)
		}
		rows++
	}
	return rows
}

func waitForKey(t *testing.T, edge, key string) {
	t.Helper()
	stack.Eventually(t, 20*time.Second, "the new key to be good", func() bool {
		req, _ := http.NewRequest(http.MethodGet, edge+"/v1/models", http.NoBody)
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}
