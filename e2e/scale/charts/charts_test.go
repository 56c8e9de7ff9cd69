//go:build scale

package charts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/e2e/kube"
	"tollgate/e2e/stack"
)

// The chart is installed, changed and removed as its page says, and what it leaves are
// the claims.
func TestHelm(t *testing.T) {
	c := kube.Start(t)
	c.Define("monitoring")
	helm := func(args ...string) string { return runHelm(t, c, args...) }
	chart := filepath.Join(stack.ModuleRoot(t), "deploy/helm/tollgate")
	notes := helm("install", "tollgate", chart, "--namespace", "inference", "--create-namespace", "--set", "simulatedEngine.enabled=true")
	if !strings.Contains(notes, "keys add --user me") || !strings.Contains(notes, "port-forward service/tollgate") {
		t.Errorf("the notes do not say what to do next:\n%s", notes)
	}
	field := func(kind, path string) string {
		return c.Kubectl("", "--namespace", "inference", "get", kind, "--output", "jsonpath={"+path+"}")
	}
	before := field("statefulset/tollgate", `.spec.template.metadata.annotations.checksum/config`)
	helm("upgrade", "tollgate", chart, "--namespace", "inference", "--set", "simulatedEngine.enabled=true,drain.seconds=90,serviceMonitor.enabled=true")
	if got := field("statefulset/tollgate", ".spec.template.spec.terminationGracePeriodSeconds"); got != "125" {
		t.Errorf("after the upgrade a pod has %s s to end, 125 were set", got)
	}
	if got := field("configmap/tollgate", ".data.config\\.yaml"); !strings.Contains(got, "drain_timeout: 90s") {
		t.Errorf("after the upgrade the configuration is\n%s", got)
	}
	if after := field("statefulset/tollgate", `.spec.template.metadata.annotations.checksum/config`); after == before {
		t.Error("another configuration makes no other pods")
	}
	if got := field("servicemonitor/tollgate", ".spec.endpoints[0].port"); got != "metrics" {
		t.Errorf("the ServiceMonitor scrapes %q", got)
	}
	if got := field("statefulset/tollgate", ".spec.persistentVolumeClaimRetentionPolicy"); !strings.Contains(got, `"whenScaled":"Retain"`) || !strings.Contains(got, `"whenDeleted":"Retain"`) {
		t.Errorf("claims go with their pods: %s", got)
	}
	claim(t, c, "inference") // as the controller makes it, of which there is none here
	helm("uninstall", "tollgate", "--namespace", "inference")
	if left := c.Kubectl("", "--namespace", "inference", "get", "statefulset,service,configmap,pdb,networkpolicy,servicemonitor", "--selector", "app.kubernetes.io/name=tollgate", "--output", "name"); left != "" {
		t.Errorf("left after uninstall:\n%s", left)
	}
	if left := c.Kubectl("", "--namespace", "inference", "get", "pvc", "--output", "name"); !strings.Contains(left, "state-tollgate-0") {
		t.Errorf("the claim with the ledger is gone: %q", left)
	}
}

// All that the chart can render is taken strictly, in a namespace that allows only
// restricted pods.
func TestManifestsAreStrict(t *testing.T) {
	c := kube.Start(t)
	c.Define("monitoring")
	root := stack.ModuleRoot(t)
	c.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: tollgate, labels: {pod-security.kubernetes.io/enforce: restricted}}\n")
	service := []string{"mode=service,listen.tlsSecret=tls,replicas=3,redis.addresses={redis:6379},postgres.existingSecret=pg,postgres.keys=true", "engines[0].address=vllm:8000", "serviceMonitor.enabled=true"}
	for name, values := range map[string][]string{
		"try":     {"simulatedEngine.enabled=true"},
		"gateway": {"replicas=2,redis.addresses={redis:6379},keys.existingSecret=keys,edge.tlsSecret=tls", "engines[0].address=vllm:8000"},
		"service": service,
	} {
		args := []string{"template", name + "-tollgate", filepath.Join(root, "deploy/helm/tollgate"), "--namespace", "tollgate"}
		for _, v := range values {
			args = append(args, "--set", v)
		}
		manifests := inNamespace(runHelm(t, c, args...))
		c.Kubectl(manifests, "apply", "--server-side", "--validate=strict", "--dry-run=server", "--namespace", "tollgate", "-f", "-")
		if name == "gateway" {
			pods(t, c, manifests)
			said := c.Refuses(strings.Replace(manifests, "terminationGracePeriodSeconds", "terminationGracePeriodSecond", 1))
			if !strings.Contains(said, "terminationGracePeriodSecond: field not declared") {
				t.Errorf("a typo is refused with\n%s", said)
			}
		}
	}
	for _, dir := range []string{"overlays/try", "overlays/replicas", "ledger-export"} {
		manifests := c.Kubectl("", "kustomize", filepath.Join(root, "deploy/kustomize", dir))
		c.Kubectl(manifests, "apply", "--server-side", "--validate=strict", "--namespace", "tollgate", "-f", "-")
		// The next one has other claims, which the server never changes.
		c.Kubectl("", "--namespace", "tollgate", "delete", "statefulset", "tollgate", "--ignore-not-found")
	}
}

// pods makes the pod of a StatefulSet itself: only then does the server hold it to the
// level of its namespace.
func pods(t *testing.T, c *kube.Cluster, manifests string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "all.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Kubectl(manifests, "apply", "--server-side", "--namespace", "tollgate", "-f", "-")
	spec := c.Kubectl("", "--namespace", "tollgate", "get", "statefulset", "gateway-tollgate", "--output", "jsonpath={.spec.template.spec}")
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"one","namespace":"tollgate"},"spec":` + spec + `}`
	pod = strings.Replace(pod, `"volumes":[`, `"volumes":[{"name":"state","emptyDir":{}},`, 1)
	c.Kubectl(pod, "create", "--dry-run=server", "--validate=strict", "-f", "-")
	wrong := strings.Replace(pod, `"allowPrivilegeEscalation":false`, `"allowPrivilegeEscalation":true`, 1)
	if said := c.Refuses(wrong); !strings.Contains(said, "PodSecurity") {
		t.Errorf("a pod that is not restricted: %s", said)
	}
}

// inNamespace gives objects a namespace, which `helm template` leaves to the install.
func inNamespace(manifests string) string {
	return strings.ReplaceAll(manifests, "\nmetadata:\n  name: ", "\nmetadata:\n  namespace: tollgate\n  name: ")
}

func claim(t *testing.T, c *kube.Cluster, namespace string) {
	t.Helper()
	spec := c.Kubectl("", "--namespace", namespace, "get", "statefulset/tollgate", "--output", "jsonpath={.spec.volumeClaimTemplates[0].spec}")
	c.Kubectl(`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"state-tollgate-0","namespace":"`+namespace+`"},"spec":`+spec+`}`, "create", "-f", "-")
}

func runHelm(t *testing.T, c *kube.Cluster, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kube.Tool(t, "helm"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
