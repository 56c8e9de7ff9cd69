//go:build scale

package containers

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/certtest"
)

// TestServicePod runs the chart's other pod, tollgate alone, and beside it an Envoy with
// a certificate, an Envoy without a good one, and an engine, each in a container and
// with an address of its own.
func TestServicePod(t *testing.T) {
	e := shared
	e.images(t)
	engine := beside(t, e, "engine", "tollgate-launcher:local", "simulate", "--listen", "0.0.0.0:8000")
	authority := certtest.New(t, "envoys")
	tollgate := authority.Issue(t, certtest.Leaf{Names: []string{"tollgate"}})
	p := startPod(t, e, t.TempDir(), secrets{"service": {"tls.crt": tollgate.Cert, "tls.key": tollgate.Key, "ca.crt": authority.PEM}},
		"--set", "mode=service,listen.tlsSecret=service,listen.clientIDs={edge},drain.delaySeconds=1,engines[0].address="+engine+":8000")
	good := remoteEnvoy(t, e, "good", p.ip, authority, authority.Issue(t, certtest.Leaf{Names: []string{"edge"}}))
	key := strings.TrimSpace(p.exec(t, "tollgate", "tollgate", "keys", "add", "--user", "me"))
	waitForKey(t, good, key)
	for i := range 5 {
		stream(t, good, key, 5+i)
	}
	if got, want := p.usage(t), truthAt(t, "http://"+engine+":8000"); got != want || got.Requests != 5 {
		t.Errorf("the ledger has %+v, the engine made %+v", got, want)
	}
	other := remoteEnvoy(t, e, "other", p.ip, authority, authority.Issue(t, certtest.Leaf{Names: []string{"somebody"}}))
	stack.Eventually(t, 30*time.Second, "an Envoy of another name to be refused", func() bool {
		req, _ := http.NewRequest(http.MethodGet, other+"/v1/models", http.NoBody)
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Fatal("it got an answer")
		}
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	p.stop(t)
}

// remoteEnvoy starts an Envoy for the tollgate at an address, by the configuration that
// the command makes, and gives the URL of its edge.
func remoteEnvoy(t *testing.T, e *engine, name, service string, authority *certtest.Authority, cert certtest.Pair) string {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{
		"config.yaml": "listen: 0.0.0.0:8080\nstate_dir: /srv/tollgate/state\n", "ca.crt": string(authority.PEM), "tls.crt": string(cert.Cert), "tls.key": string(cert.Key),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	state := t.TempDir()
	if err := os.Chown(state, 10001, 10001); err != nil {
		t.Fatal(err)
	}
	volumes := []string{"--volume", dir + ":/etc/envoy:ro", "--volume", state + ":/srv/tollgate/state"}
	e.do(t, "docker", append(append([]string{"run", "--rm"}, volumes...), "tollgate:local", "--config", "/etc/envoy/config.yaml", "envoy", "config", "--write",
		"--service", service+":9443", "--server-name", "tollgate", "--ca-file", "/etc/envoy/ca.crt", "--cert-file", "/etc/envoy/tls.crt", "--key-file", "/etc/envoy/tls.key")...)
	return "http://" + beside(t, e, name, append(volumes, "tollgate-envoy:local")...) + ":8080"
}

// beside starts a container that the test's end removes, and gives its address.
func beside(t *testing.T, e *engine, name string, args ...string) string {
	t.Helper()
	name = "beside-" + name
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := e.run("docker", "logs", "--tail", "8", name)
			t.Log(said)
		}
		_, _ = e.run("docker", "rm", "--force", name)
	})
	e.do(t, "docker", append([]string{"run", "--detach", "--name", name}, args...)...)
	return e.address(t, name)
}
