package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// house is docs/models.md on this machine: host A is 127.0.0.1 and host B 127.0.0.2,
// each launcher in a folder of its own.
type house struct {
	t    *testing.T
	dir  string
	edge string // host:port of the gateway
	http *http.Client
}

// TestTwoHostsAndThreeModels does what docs/models.md says, with its own files. Only
// addresses, paths and the engines, which are simulated, are others.
func TestTwoHostsAndThreeModels(t *testing.T) {
	h := newHouse(t)
	page, err := os.ReadFile("../../docs/models.md")
	if err != nil {
		t.Fatal(err)
	}
	files := regexp.MustCompile("(?s)`/etc/tollgate/([a-z]+\\.yaml)`[^`]*```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(files) != 3 {
		t.Fatalf("%d configurations in docs/models.md, want 3", len(files))
	}
	for _, f := range files {
		h.configure(f[1], f[2])
	}
	h.tollgate("config.yaml", "keys", "add", "--user", "admin")
	h.write("gate.key", h.tollgate("config.yaml", "keys", "add", "--user", "launcher", "--id", "host-b"))
	alice := strings.TrimSpace(h.tollgate("config.yaml", "keys", "add", "--user", "alice"))

	gateway := h.launch("config.yaml", "up")
	gateway.ready("ready https://")
	if got := h.ask(alice, "chat"); got != "Qwen/Qwen3-0.6B" {
		t.Errorf("chat without its engine: served by %q, want the fallback", got)
	}
	chat, code := h.launch("chat.yaml", "vllm"), h.launch("code.yaml", "vllm")
	chat.ready("ready http://")
	code.ready("ready http://")
	h.served(alice, "chat", "Qwen/Qwen3-8B")
	h.served(alice, "code", "Qwen/Qwen3-Coder-30B-A3B-Instruct")
	list := h.tollgate("config.yaml", "engines")
	if n := strings.Count(list, "launcher host-b"); n != 2 || strings.Count(list, "ready") != 3 {
		t.Errorf("engines:\n%s", list)
	}
	// A stop takes the engine out first; a death is found out.
	chat.stop(syscall.SIGTERM)
	h.served(alice, "chat", "Qwen/Qwen3-0.6B")
	if list := h.tollgate("config.yaml", "engines"); strings.Contains(list, "Qwen3-8B") {
		t.Errorf("an engine that was stopped is still there:\n%s", list)
	}
	code.stop(syscall.SIGKILL)
	stack.Eventually(t, 30*time.Second, "the engine of a dead launcher to be taken out", func() bool {
		return strings.Contains(h.tollgate("config.yaml", "engines"), "its launcher has been silent")
	})
	if got := h.ask(alice, "code"); got != "503" {
		t.Errorf("code without its engine: %q, want 503", got)
	}
	gateway.stop(syscall.SIGTERM)
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{t: t, dir: dir, edge: "127.0.0.1:" + strconv.Itoa(stack.FreePort(t))}
	h.write("vllm.key", "the engines' key")
	pool := h.certificate()
	h.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	return h
}

func (h *house) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// certificate is one for 127.0.0.1, which signs itself.
func (h *house) certificate() *x509.CertPool {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gate"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		h.t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		h.t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	h.write("cert.pem", text)
	h.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(text))
	return pool
}

// configure writes a file of the page for this machine.
func (h *house) configure(name, text string) {
	h.t.Helper()
	port := func(string) string { return "port: " + strconv.Itoa(stack.FreePort(h.t)) }
	text = regexp.MustCompile(`(?m)port: \d+`).ReplaceAllStringFunc(text, port)
	text = strings.NewReplacer(
		"/etc/tollgate", h.dir, "0.0.0.0:8443", h.edge, "gate.example.org:8443", h.edge,
		"10.0.0.1", "127.0.0.1", "10.0.0.2", "127.0.0.2", "\nvllm:\n", "\nvllm:\n  launch_mode: simulated\n",
	).Replace(text)
	text = regexp.MustCompile(`(?m)^  python_launcher: .*\n`).ReplaceAllString(text, "")
	if name == "config.yaml" {
		text += fmt.Sprintf("metrics_listen: 127.0.0.1:%d\nenvoy: {concurrency: 1}\n", stack.FreePort(h.t))
	}
	h.write(name, text)
}

func (h *house) command(program, config string, args ...string) *exec.Cmd {
	cmd := exec.Command(stack.Binary(h.t, program), append([]string{"--config", config}, args...)...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "ENVOY_BIN="+stack.EnvoyBinary(h.t), "SSL_CERT_FILE="+filepath.Join(h.dir, "cert.pem"))
	return cmd
}

// tollgate runs a command to its end and returns what it printed.
func (h *house) tollgate(config string, args ...string) string {
	h.t.Helper()
	out, err := h.command("tollgate", config, args...).Output()
	if err != nil {
		h.t.Fatalf("tollgate %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// child is a launcher that runs.
type child struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  string // path of what it prints
	done chan struct{}
}

func (h *house) launch(config, command string) *child {
	h.t.Helper()
	stack.Binary(h.t, "tollgate") // beside the launcher
	c := &child{t: h.t, cmd: h.command("launcher", config, command), out: filepath.Join(h.dir, config+".out"), done: make(chan struct{})}
	out, err := os.Create(c.out)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { defer close(c.done); _ = c.cmd.Wait() }()
	h.t.Cleanup(func() {
		c.stop(syscall.SIGKILL)
		if h.t.Failed() {
			h.t.Logf("%s %s printed:\n%s", command, config, c.printed())
		}
	})
	return c
}

func (c *child) printed() string {
	b, _ := os.ReadFile(c.out)
	return string(b)
}

func (c *child) ready(line string) {
	c.t.Helper()
	stack.Eventually(c.t, 60*time.Second, line, func() bool { return strings.Contains(c.printed(), line) })
}

func (c *child) stop(sig syscall.Signal) {
	select {
	case <-c.done:
		return
	default:
	}
	_ = c.cmd.Process.Signal(sig)
	select {
	case <-c.done:
	case <-time.After(60 * time.Second):
		c.t.Errorf("the launcher still runs after %s", sig)
	}
}

// ask returns the model that served a name, or the status of a refusal.
func (h *house) ask(key, model string) string {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, "https://"+h.edge+stack.ChatPath, strings.NewReader(chat(model, false, 2, "")))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.http.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return strconv.Itoa(resp.StatusCode)
	}
	return served200(h.t, resp)
}

func (h *house) served(key, name, model string) {
	h.t.Helper()
	stack.Eventually(h.t, 30*time.Second, name+" to be served by "+model, func() bool { return h.ask(key, name) == model })
}
