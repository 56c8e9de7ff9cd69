//go:build scale

package scale_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/kube"
	"tollgate/e2e/stack"
)

// gatewayURL is where the Gateways of deploy/ listen.
const gatewayURL = "http://127.0.0.1:8888"

// kustomize renders a folder of deploy/ with patches of the test, as a user's overlay
// does.
func kustomize(t *testing.T, folder, patches string) string {
	t.Helper()
	dir := t.TempDir()
	base, err := filepath.Rel(dir, filepath.Join(stack.ModuleRoot(t), "deploy", folder))
	if err != nil {
		t.Fatal(err)
	}
	overlay := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [" + base + "]\npatches:\n" + patches
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), kube.Tool(t, "kubectl"), "kustomize", dir).Output()
	if err != nil {
		t.Fatalf("render deploy/%s: %v\n%s", folder, err, stderr(err))
	}
	return string(out)
}

func stderr(err error) string {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as exec returns it
		return string(exit.Stderr)
	}
	return ""
}

// point is a patch that gives a Backend its address.
func point(name, endpoint string) string {
	return `- {target: {kind: Backend, name: ` + name + `}, patch: '[{"op": "replace", "path": "/spec/endpoints", "value": [` + endpoint + `]}]'}` + "\n"
}

func unixAt(path string) string { return `{"unix": {"path": "` + path + `"}}` }

// nameAt is an endpoint by tollgate's name, at another port: Envoy Gateway itself has 9443
// on all addresses, and there is one network here.
func nameAt(address string) string {
	_, port, _ := strings.Cut(address, ":")
	return `{"fqdn": {"hostname": "` + serverName + `", "port": ` + port + `}}`
}

// ipAt is an endpoint at host:port.
func ipAt(address string) string {
	host, port, _ := strings.Cut(address, ":")
	return `{"ip": {"address": "` + host + `", "port": ` + port + `}}`
}

// secrets are the Secret and the ConfigMap that the manifests refer to: the certificate
// with which Envoy calls tollgate, and the authority that has signed tollgate's.
func (e *edge) secrets() string {
	encode := func(name string) string { return base64.StdEncoding.EncodeToString([]byte(e.certs.text(e.t, name))) }
	return fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: tollgate-client}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s, ca.crt: %s}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: tollgate-ca}
data: {ca.crt: %q}
`, encode("client.crt"), encode("client.key"), encode("ca.crt"), e.certs.text(e.t, "ca.crt"))
}

// write writes a file below a folder of the test.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// envoyHome makes a folder in which Envoy Gateway finds the Envoy of this project in place
// of one that it would download.
func envoyHome(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "envoy-versions/1.40.0/bin/envoy")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(stack.EnvoyBinary(t), path); err != nil {
		t.Fatal(err)
	}
}

// Envoy Gateway on one host, without Kubernetes: deploy/envoy-gateway/standalone, tollgate
// over its Unix sockets.
func TestEnvoyGatewayStandalone(t *testing.T) {
	alone(t)
	e := startTollgate(t, "Envoy Gateway, standalone")
	e.URL = gatewayURL
	dir := t.TempDir()
	rendered := kustomize(t, "envoy-gateway/standalone",
		point("tollgate", unixAt(e.Path("state/run/grpc.sock")))+point("tollgate-pages", ipAt(tollgateAddress))+
			point("vllm", ipAt(engineAddress)))
	write(t, filepath.Join(dir, "resources/all.yaml"), rendered+"---\n"+e.secrets())
	settings := read(t, "deploy/envoy-gateway/standalone/envoy-gateway.yaml")
	for was, is := range map[string]string{"/etc/tollgate/envoy-gateway": "resources", "/var/lib/envoy-gateway/config": "config", "/var/lib/envoy-gateway/data": "data", "/var/lib/envoy-gateway/state": "state", "/run/envoy-gateway": "runtime"} {
		if strings.Count(settings, was) != 1 {
			t.Fatalf("envoy-gateway.yaml does not name %s once", was)
		}
		settings = strings.Replace(settings, was, filepath.Join(dir, is), 1)
	}
	write(t, filepath.Join(dir, "envoy-gateway.yaml"), settings)
	envoyHome(t, filepath.Join(dir, "data"))
	program := kube.Tool(t, "envoy-gateway")
	if out, err := exec.CommandContext(t.Context(), program, "certgen", "--local", "--config-home", filepath.Join(dir, "config")).CombinedOutput(); err != nil {
		t.Fatalf("certgen: %v\n%s", err, out)
	}
	stack.NewProcess(t, "envoy-gateway", filepath.Join(dir, "envoy-gateway.out"), func() *exec.Cmd {
		cmd := exec.Command(program, "server", "--config-path", filepath.Join(dir, "envoy-gateway.yaml"))
		cmd.Env = append(os.Environ(), "HOME="+dir)
		return cmd
	}).Start()
	e.waitFor(30 * time.Second)
	e.everything()
	e.alive(1100)
	e.agree()
}

// waitFor waits until the edge gives an answer of the engine.
func (e *edge) waitFor(limit time.Duration) {
	e.t.Helper()
	stack.Eventually(e.t, limit, "an answer through "+e.name, func() bool {
		resp, err := e.HTTP1.Get(e.URL + "/health")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	var last *stack.Answer
	e.t.Cleanup(func() {
		if e.t.Failed() && last != nil {
			e.t.Logf("the first requests end with %d %v %.300s", last.StatusCode, last.Header, last.Bytes)
		}
	})
	stack.Eventually(e.t, limit, "an engine behind "+e.name, func() bool {
		last = e.chat(false, 1, "")
		return last.StatusCode == http.StatusOK
	})
}

// read reads a file of the project.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(stack.ModuleRoot(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Envoy Gateway in Kubernetes: deploy/envoy-gateway/kubernetes as it is, tollgate over
// mutual TLS. Envoy is started as the Deployment that Envoy Gateway has made says.
func TestEnvoyGatewayInKubernetes(t *testing.T) {
	alone(t)
	c := kube.Start(t)
	c.Define("gateway-api")
	c.Define("envoy-gateway")
	e := startTollgate(t, "Envoy Gateway in Kubernetes")
	e.URL = gatewayURL
	namespaces(c, "tollgate", "envoy-gateway-system")
	c.Kubectl(e.secrets(), "-n", "tollgate", "apply", "-f", "-")
	manifests := kustomize(t, "envoy-gateway/kubernetes", point("tollgate", nameAt(tollgateAddress))+point("tollgate-pages", nameAt(tollgateAddress)))
	c.Apply(manifests)
	e.typos(c, manifests)
	startEnvoyGateway(t, c)
	e.accepted(c)
	proxy := podOf(t, c, "envoy-gateway-system", proxyName(c), "envoy")
	proxy.start(t, "envoy", stack.EnvoyBinary(t))
	e.waitFor(30 * time.Second)
	e.chain("envoy.filters.http.ext_authz/", "envoy.filters.http.ext_proc/", "envoy.filters.http.buffer", "envoy.filters.http.router")
	e.everything()
	e.alive(1100)
	e.agree()
}

// chain sees that Envoy's filters begin with these names and stand in this order. None of the
// first two has the name that Envoy's documents use: tickets pass all the same, because
// Envoy writes them under the name of the extension and not of the filter.
func (e *edge) chain(want ...string) {
	e.t.Helper()
	resp, err := http.Get("http://127.0.0.1:19000/config_dump?resource=dynamic_listeners")
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	dump, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	_, filters, _ := strings.Cut(string(dump), `"http_filters"`)
	at := 0
	for _, name := range want {
		i := strings.Index(filters[at:], `"name": "`+name)
		if i < 0 {
			e.t.Fatalf("%s: no filter %s behind byte %d of\n%.6000s", e.name, name, at, filters)
		}
		at += i
	}
}

// accepted sees that Envoy Gateway has taken every policy and route.
func (e *edge) accepted(c *kube.Cluster) {
	e.t.Helper()
	for _, object := range []string{"securitypolicy/tollgate", "envoyextensionpolicy/tollgate", "clienttrafficpolicy/tollgate", "backendtrafficpolicy/inference", "httproute/inference", "httproute/pages"} {
		path := "{.status.ancestors[*].conditions[*].status}"
		if strings.HasPrefix(object, "httproute/") {
			path = "{.status.parents[*].conditions[*].status}"
		}
		stack.Eventually(e.t, time.Minute, object+" to be accepted", func() bool {
			got := strings.Fields(c.Kubectl("", "-n", "tollgate", "get", object, "-o", "jsonpath="+path))
			return len(got) > 0 && !slices.Contains(got, "False")
		})
	}
}

// proxyName is the name of the Deployment that Envoy Gateway has made for the Gateway.
func proxyName(c *kube.Cluster) string {
	return strings.TrimSpace(c.Kubectl("", "-n", "envoy-gateway-system", "get", "deployments", "-l", "gateway.envoyproxy.io/owning-gateway-name=tollgate", "-o", "jsonpath={.items[*].metadata.name}"))
}

func namespaces(c *kube.Cluster, names ...string) {
	for _, name := range names {
		c.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}\n")
	}
}

// typos sees that the API server refuses a name that it does not know, in each kind of
// object.
func (e *edge) typos(c *kube.Cluster, manifests string) {
	e.t.Helper()
	for doc := range strings.SplitSeq(manifests, "\n---\n") {
		if said := c.Refuses(strings.Replace(doc, "\nspec:\n", "\nspec:\n  noSuchSetting: 1\n", 1)); !strings.Contains(said, "noSuchSetting") {
			e.t.Errorf("the refusal does not name the typo: %s", said)
		}
	}
}

// startEnvoyGateway runs Envoy Gateway against the API server.
func startEnvoyGateway(t *testing.T, c *kube.Cluster) {
	t.Helper()
	const settings = `apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
provider: {type: Kubernetes, kubernetes: {leaderElection: {disable: true}, proxyTopologyInjector: {disable: true}}}
extensionApis: {enableBackend: true}
# Not the ports of Envoy: there is one network here.
admin: {address: {host: 127.0.0.1, port: 19009}}
telemetry: {metrics: {prometheus: {disable: true}}}
`
	program, dir := kube.Tool(t, "envoy-gateway"), t.TempDir()
	environment := []string{"KUBECONFIG=" + c.Kubeconfig, "ENVOY_GATEWAY_NAMESPACE=envoy-gateway-system", "KUBERNETES_CLUSTER_DOMAIN=cluster.local"}
	certgen := exec.CommandContext(t.Context(), program, "certgen", "--disable-topology-injector")
	certgen.Env = append(os.Environ(), environment...)
	if said, err := certgen.CombinedOutput(); err != nil {
		t.Fatalf("certgen: %v\n%s", err, said)
	}
	write(t, filepath.Join(dir, "envoy-gateway.yaml"), settings)
	files(t, c, "envoy-gateway-system", "secret/envoy-gateway", filepath.Join(dir, "certs"))
	pod{
		Args: []string{"server", "--config-path", filepath.Join(dir, "envoy-gateway.yaml")}, Env: environment,
		Files: map[string]string{"/certs": filepath.Join(dir, "certs")},
	}.start(t, "envoy-gateway", program)
	stack.Eventually(t, time.Minute, "the Deployment of the proxy", func() bool {
		return proxyName(c) != ""
	})
}
