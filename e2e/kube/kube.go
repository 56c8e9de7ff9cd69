// Package kube starts a real API server of Kubernetes for black-box tests: etcd and
// kube-apiserver on loopback, in a folder of the test's own, without any node. What is
// applied is checked and kept as in any cluster, and no pod runs. Control planes such as
// Envoy Gateway and istiod work against it.
//
// The programs come from scripts/fetch_scale.py.
package kube

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// token opens the API server as a member of system:masters. It listens on loopback and
// ends with the test.
const token = "the-test"

// Cluster is a running API server.
type Cluster struct {
	tb testing.TB
	// Kubeconfig is a file for kubectl, helm and control planes.
	Kubeconfig string
	// APIServer may be killed and started again by a test.
	APIServer *stack.Process
	address   string
}

// Tool is the path of a program that scripts/fetch_scale.py has in .cache/scale/bin:
// kube-apiserver, kubectl, etcd, helm, envoy-gateway, pilot-discovery, epp, prometheus.
// Where it is missing the test is skipped by name; with E2E=require it fails instead.
func Tool(tb testing.TB, name string) string {
	tb.Helper()
	dir := os.Getenv("SCALE_BIN")
	if dir == "" {
		dir = filepath.Join(stack.ModuleRoot(tb), ".cache/scale/bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil { //nolint:gosec // a folder of the build
		return path
	}
	if os.Getenv("E2E") == "require" {
		tb.Fatalf("E2E=require, but there is no %s: run scripts/fetch_scale.py", path)
	}
	tb.Skipf("needs %s, see scripts/fetch_scale.py", name)
	return ""
}

// Start starts etcd and the API server and waits until it is ready.
func Start(tb testing.TB) *Cluster {
	tb.Helper()
	dir := tb.TempDir()
	c := &Cluster{tb: tb, Kubeconfig: filepath.Join(dir, "kubeconfig"), address: loopback(stack.FreePort(tb))}
	store := "http://" + startEtcd(tb, dir)
	signer, users := filepath.Join(dir, "signer.key"), filepath.Join(dir, "tokens.csv")
	writeKey(tb, signer)
	write(tb, users, token+",test,1,system:masters\n")
	_, port, _ := net.SplitHostPort(c.address)
	server := Tool(tb, "kube-apiserver")
	c.APIServer = stack.NewProcess(tb, "kube-apiserver", filepath.Join(dir, "apiserver.out"), func() *exec.Cmd {
		cmd := exec.Command(server, //nolint:gosec // the pinned one
			"--etcd-servers="+store, "--bind-address=127.0.0.1", "--secure-port="+port, // Nobody is told of it, and loopback is refused.
			"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none",
			"--cert-dir="+filepath.Join(dir, "certs"), "--token-auth-file="+users, "--authorization-mode=RBAC",
			"--service-account-issuer=https://127.0.0.1", "--service-account-key-file="+signer, "--service-account-signing-key-file="+signer,
			"--service-cluster-ip-range=10.96.0.0/16",
			// Needs an etcd that is newer than Debian's.
			"--feature-gates=SizeBasedListCostEstimate=false",
			// No controller makes the account that pods get.
			"--disable-admission-plugins=ServiceAccount")
		cmd.Dir = dir
		return cmd
	})
	c.APIServer.Start()
	write(tb, c.Kubeconfig, kubeconfig(c.address, filepath.Join(dir, "certs/apiserver.crt")))
	stack.Eventually(tb, 2*time.Minute, "the API server to be ready", func() bool {
		_, err := c.try("", "get", "--raw", "/readyz")
		return err == nil
	})
	return c
}

func startEtcd(tb testing.TB, dir string) string {
	tb.Helper()
	client, peer := loopback(stack.FreePort(tb)), loopback(stack.FreePort(tb))
	program := Tool(tb, "etcd")
	p := stack.NewProcess(tb, "etcd", filepath.Join(dir, "etcd.out"), func() *exec.Cmd {
		cmd := exec.Command(program, //nolint:gosec // the pinned one
			"--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
			"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
			"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
		cmd.Dir = dir
		return cmd
	})
	p.Start()
	return client
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func kubeconfig(address, authority string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "https://%s", certificate-authority: %q}}]
users: [{name: test, user: {token: %s}}]
contexts: [{name: test, context: {cluster: test, user: test, namespace: default}}]
`, address, authority, token)
}

// writeKey writes a key that signs the tokens of service accounts.
func writeKey(tb testing.TB, path string) {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	write(tb, path, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Define applies the definitions of resources of one project: gateway-api,
// envoy-gateway, istio or inference.
func (c *Cluster) Define(project string) {
	c.tb.Helper()
	// By the server: the annotation of a client's apply has no room for them.
	c.Kubectl("", "apply", "--server-side", "-f", Tool(c.tb, "crds/"+project)+"/")
	c.Kubectl("", "wait", "--for=condition=Established", "--timeout=60s", "-f", Tool(c.tb, "crds/"+project)+"/")
}

// Apply applies manifests, given as text. A field that the server does not know fails
// the test.
func (c *Cluster) Apply(manifests string) {
	c.tb.Helper()
	c.Kubectl(manifests, "apply", "--server-side", "--validate=strict", "-f", "-")
}

// Refuses applies manifests that the server must refuse, changes nothing, and returns
// what kubectl said.
func (c *Cluster) Refuses(manifests string) string {
	c.tb.Helper()
	said, err := c.try(manifests, "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-")
	if err == nil {
		c.tb.Errorf("the API server has taken\n%s", manifests)
	}
	return said
}

// Kubectl runs kubectl with standard input and returns what it printed. An error ends
// the test.
func (c *Cluster) Kubectl(stdin string, args ...string) string {
	c.tb.Helper()
	said, err := c.try(stdin, args...)
	if err != nil {
		c.tb.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return said
}

// try runs kubectl and returns all that it printed, on an error with what it said on
// stderr.
func (c *Cluster) try(stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(c.tb.Context(), Tool(c.tb, "kubectl"), args...) //nolint:gosec // the test's own arguments
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "HOME="+filepath.Dir(c.Kubeconfig))
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String() + errs.String(), err
	}
	return out.String(), nil
}
