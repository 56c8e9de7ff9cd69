//go:build scale

package scale_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"tollgate/e2e/kube"
	"tollgate/e2e/stack"
)

// secondAddress is that of the other engine of the pool.
const secondAddress = "10.9.9.4:8000"

// An endpoint picker behind tollgate: deploy/gie, two engines in one pool.
func TestEndpointPicker(t *testing.T) {
	alone(t)
	c := kube.Start(t)
	c.Define("istio")
	c.Define("inference")
	namespaces(c, "tollgate", "istio-system")
	e := startTollgate(t, "an endpoint picker")
	e.hosts = "10.9.9.4 vllm.tollgate.svc.cluster.local\n"
	e.sims = append(e.sims, startEngine(t, secondAddress, engineOptions))
	pods(c, "10.9.9.9", "10.9.9.4")
	picker := e.picker(c)
	e.behindIstio(c, "gie", picker.Start)
	e.chain("envoy.filters.http.ext_authz", "tollgate.ext_proc", "tollgate.buffer", "tollgate.picker", "envoy.filters.http.router")
	e.everything()
	e.picked()
	e.alive(1100)
	picker.Kill()
	e.want("a chat without the picker", e.chat(true, 5, ""), 503, "")
	e.want("Anthropic without the picker", e.Post("/v1/messages", `{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":8}`), 200, `"output_tokens":8`)
	e.agree()
}

// pods puts engines into the API server, as a kubelet would report them.
func pods(c *kube.Cluster, addresses ...string) {
	for i, address := range addresses {
		name := fmt.Sprintf("vllm-%d", i)
		c.Apply("apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: tollgate, labels: {app: vllm}}\nspec: {nodeName: node, containers: [{name: vllm, image: vllm}]}\n")
		c.Kubectl("", "-n", "tollgate", "patch", "pod", name, "--subresource=status", "--type=merge", "-p",
			`{"status": {"phase": "Running", "podIP": "`+address+`", "podIPs": [{"ip": "`+address+`"}], "conditions": [{"type": "Ready", "status": "True"}]}}`)
	}
}

// picker is the endpoint picker; it wants the pool to be there when it starts.
func (e *edge) picker(c *kube.Cluster) *stack.Process {
	program, dir := kube.Tool(e.t, "epp"), e.t.TempDir()
	return stack.NewProcess(e.t, "picker", filepath.Join(dir, "out"), func() *exec.Cmd {
		cmd := exec.Command(program, "--pool-name=vllm", "--pool-namespace=tollgate", "--metrics-endpoint-auth=false", "--tracing=false")
		cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "HOME="+dir)
		cmd.Dir = dir
		return cmd
	})
}

// picked sees that each completion is at the engine that the picker chose, and that both
// engines had some.
func (e *edge) picked() {
	e.t.Helper()
	addresses, total := []string{engineAddress, secondAddress}, 0
	for i, sim := range e.sims {
		here := 0
		for _, truth := range sim.Truths() {
			if truth.Endpoint != "/v1/chat/completions" && truth.Endpoint != "/v1/completions" {
				continue
			}
			here++
			if got := truth.Headers["x-gateway-destination-endpoint"]; !slices.Equal(got, []string{addresses[i]}) {
				e.t.Errorf("a request that the picker had sent to %v is at %s", got, addresses[i])
			}
		}
		if here == 0 {
			e.t.Errorf("%s had no request", addresses[i])
		}
		total += here
	}
	e.t.Logf("%d of %d completions are where the picker sent them", total, total)
}
