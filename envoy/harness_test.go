package envoy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// edge is a real Envoy between a scripted engine and a stand-in for tollgate.
type edge struct {
	addr     string // of the listener
	state    string // state_dir
	stand    *stand
	engine   *engine
	upstream *httptest.Server
	proc     *exec.Cmd
}

// showScripts lets the stand see the headers that tell it what to do, beside
// those that tollgate reads.
func showScripts(t *testing.T, bootstrap string) {
	t.Helper()
	text, err := os.ReadFile(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	const known = "{ exact: x-request-id }"
	if n := bytes.Count(text, []byte("allowed_headers: { patterns: [")); n != 2 || bytes.Count(text, []byte(known)) < n {
		t.Fatalf("%d lists of allowed headers, or one without x-request-id", n)
	}
	text = bytes.ReplaceAll(text, []byte(known), []byte(known+", { exact: x-test-authz }, { exact: x-test-proc }"))
	if err := os.WriteFile(bootstrap, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startEdge runs Envoy on what change makes of the defaults.
func startEdge(t *testing.T, change func(*config.Config)) *edge {
	t.Helper()
	bin := binary(t)
	e := &edge{stand: &stand{}, engine: &engine{}}
	up := httptest.NewServer(e.engine)
	t.Cleanup(up.Close)
	e.upstream = up
	host, port, err := net.SplitHostPort(up.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := defaults()
	c.Listen = freeAddr(t)
	c.VLLM.Host = host
	if c.VLLM.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	c.Request.MaxBodyMB = 1
	c.Envoy.Concurrency = 1
	c.DrainTimeout = 2 * time.Second
	change(c)
	e.addr = c.Listen

	//nolint:usetesting // the stand-in binds absolute socket paths, and t.TempDir's are too long for some test names
	if e.state, err = os.MkdirTemp("", "edge"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(e.state) })
	p, err := envoy.ParamsFor(c)
	if err != nil {
		t.Fatal(err)
	}
	file, err := envoy.Write(e.state, p)
	if err != nil {
		t.Fatal(err)
	}
	showScripts(t, filepath.Join(e.state, file))
	engines, err := envoy.Upstreams(c)
	if err != nil {
		t.Fatal(err)
	}
	for i, engine := range engines {
		engines[i].Models = []string{theModel}
		if engine.Host == "localhost" { // Envoy is told addresses only
			engines[i].Host, engines[i].Name = "127.0.0.1", engine.Authority()
		}
	}
	e.stand.serve(t, e.state, engines...)
	e.proc = exec.Command(bin, envoy.Args(file, c)...)
	e.proc.Dir = e.state
	log := &lockedBuffer{}
	e.proc.Stdout, e.proc.Stderr = log, log
	if err := e.proc.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.proc.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("stop envoy: %v", err)
		}
		if err := e.proc.Wait(); err != nil {
			t.Logf("envoy stopped with %v", err)
		}
		if t.Failed() {
			t.Logf("envoy said:\n%s", log.String())
		}
	})
	eventually(t, "envoy live and the engine's health known", func() bool {
		return strings.Contains(e.admin(http.MethodGet, "/ready"), "LIVE") &&
			!strings.Contains(e.admin(http.MethodGet, "/stats?filter=cluster.vllm.health_check.attempt"), "attempt: 0")
	})
	return e
}

// admin asks Envoy's admin page; errors are the empty string.
func (e *edge) admin(method, path string) string {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(e.state, config.EnvoyAdminSocket))
		},
	}}
	req, err := http.NewRequest(method, "http://envoy"+path, http.NoBody)
	if err != nil {
		return ""
	}
	resp, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends one request; header alternates names and values.
func (e *edge) do(t *testing.T, method, path string, body io.Reader, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+e.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// raw writes bytes to the listener and returns all that comes back.
func (e *edge) raw(t *testing.T, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(conn)
	return string(b)
}

// openAIError is type and code of an OpenAI error body.
func (a answer) openAIError(t *testing.T) (kind, code string) {
	t.Helper()
	var doc struct {
		Error struct {
			Message, Type, Code string
			Param               json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
		t.Fatalf("status %d: %q is no error body: %v", a.status, a.body, err)
	}
	if doc.Error.Message == "" || string(doc.Error.Param) != "null" {
		t.Errorf("body %s: want a message and param null", a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content-type: got %q", got)
	}
	if a.header.Get("X-Request-Id") == "" {
		t.Errorf("status %d: no x-request-id", a.status)
	}
	return doc.Error.Type, doc.Error.Code
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came: %s", what)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

// Write implements [io.Writer].
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func pairIn(dir string) config.TLS {
	return config.TLS{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
}

// writePair puts a fresh self-signed certificate for name into dir, by rename.
func writePair(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := pairIn(dir)
	for file, block := range map[string]*pem.Block{
		pair.CertFile: {Type: "CERTIFICATE", Bytes: cert}, pair.KeyFile: {Type: "EC PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
}

// shrinkBacklog makes a listener's queue as short as the kernel allows.
func shrinkBacklog(fd uintptr) error { return syscall.Listen(int(fd), 0) }
