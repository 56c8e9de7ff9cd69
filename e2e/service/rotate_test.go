package service_test

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/certtest"
	"tollgate/internal/config"
	"tollgate/internal/unixsock"
	"tollgate/internal/vllmsim"
)

// load sends requests until it is stopped: chats, streams that last, and pages, each
// over connections of their own now and then.
type load struct {
	r      *rig
	cancel context.CancelFunc
	done   sync.WaitGroup
	sent   atomic.Int64
	failed sync.Map // what went wrong
}

// startLoad begins to send.
func (r *rig) startLoad() *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{r: r, cancel: cancel}
	for _, ask := range []func(){
		func() { l.ask(http.MethodPost, stack.ChatPath, chat) },
		func() { l.ask(http.MethodPost, stack.ChatPath, slow) },
		func() { l.ask(http.MethodGet, "/v1/models", "") },
		func() { l.ask(http.MethodGet, "/v1/key", "") },
	} {
		l.done.Go(func() {
			for ctx.Err() == nil {
				ask()
			}
		})
	}
	return l
}

// slow is a stream that outlasts a change of certificates.
const slow = `{"model":"tiny","max_tokens":60,"stream":true,"messages":[{"role":"user","content":"slowly"}]}`

func (l *load) ask(method, path, body string) {
	req, err := http.NewRequestWithContext(context.Background(), method, l.r.URL+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.r.HTTP1.Do(req)
	if err == nil {
		var text []byte
		text, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			l.failed.Store(path+": "+resp.Status+" "+string(text), true)
		}
	}
	if err != nil {
		l.failed.Store(path+": "+err.Error(), true)
	}
	l.sent.Add(1)
}

// more waits until so many further requests have been answered.
func (l *load) more(n int64) {
	l.r.t.Helper()
	from := l.sent.Load()
	stack.Eventually(l.r.t, time.Minute, "requests to go on", func() bool { return l.sent.Load() >= from+n })
}

// stop ends the load and tells what failed.
func (l *load) stop() {
	l.r.t.Helper()
	l.cancel()
	l.done.Wait()
	l.failed.Range(func(what, _ any) bool {
		l.r.t.Errorf("failed: %s", what)
		return true
	})
}

// serving waits until the port shows another certificate than before, and returns its
// serial number. It connects as an Envoy of the rig's own authority would.
func (r *rig) serving(before string, authority *certtest.Authority) string {
	r.t.Helper()
	now := ""
	stack.Eventually(r.t, 20*time.Second, "another certificate", func() bool {
		cert := authority.Issue(r.t, certtest.Leaf{Names: []string{envoyID}}).TLS(r.t)
		conn, err := r.dial(&cert, "http/1.1")
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close() }()
		if hello(conn) != nil {
			return false
		}
		now = conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
		return now != before
	})
	return now
}

// envoyTook changes files of Envoy, and waits until it uses them.
func (r *rig) envoyTook(change func()) {
	r.t.Helper()
	const stat = "cluster.tollgate_proc.client_ssl_socket_factory.ssl_context_update_by_sds"
	before := r.stat(stat)
	change()
	stack.Eventually(r.t, 20*time.Second, "Envoy to take its new files", func() bool { return r.stat(stat) > before })
}

// stat is a counter of Envoy.
func (r *rig) stat(name string) int {
	r.t.Helper()
	client := unixsock.HTTPClient(r.Cfg.InState(config.EnvoyAdminSocket), 5*time.Second)
	resp, err := client.Get("http://envoy/stats?filter=^" + regexp.QuoteMeta(name) + "$")
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	_, value, _ := strings.Cut(strings.TrimSpace(string(text)), ": ")
	n, err := strconv.Atoi(value)
	if err != nil {
		r.t.Fatalf("%s: %q", name, text)
	}
	return n
}

// reconnect waits until Envoy has made new connections of each kind.
func (r *rig) reconnect() {
	r.t.Helper()
	for _, cluster := range []string{"tollgate_authz", "tollgate_proc", "tollgate_http"} {
		name := "cluster." + cluster + ".upstream_cx_total"
		before := r.stat(name)
		stack.Eventually(r.t, 30*time.Second, "new connections of "+cluster, func() bool { return r.stat(name) > before+1 })
	}
}

// TestCertificatesChangeUnderLoad: tollgate's, Envoy's, and the authorities of both, in
// the order in which they must, without one failed request.
func TestCertificatesChangeUnderLoad(t *testing.T) {
	r := start(t, "", stack.Options{Sim: vllmsim.Options{Delay: 30 * time.Millisecond}, NoStart: true})
	r.Tollgate.Start()
	// Connections are new every second, so that each change is met by some.
	r.EnvoyWith(r.remote, func(bootstrap string) string {
		return strings.ReplaceAll(bootstrap, "max_connection_duration: 1200s", "max_connection_duration: 1s")
	}).Start()
	r.Ready()
	l := r.startLoad()
	defer l.stop()
	l.more(20)
	first := r.serving("", r.client)

	r.issueServer()
	second := r.serving(first, r.client)
	r.reconnect()
	l.more(20)

	r.envoyTook(r.issueClient)
	r.reconnect()
	l.more(20)

	// The authority of the Envoys: both, then certificates of the next one, then it alone.
	old, next := r.client, certtest.New(t, "client, next")
	certtest.Write(t, r.dir, "client-ca.crt", append(append([]byte{}, old.PEM...), next.PEM...))
	r.serving("", next)
	r.client = next
	r.envoyTook(r.issueClient)
	r.reconnect()
	l.more(20)
	certtest.Write(t, r.dir, "client-ca.crt", next.PEM)
	stack.Eventually(t, 20*time.Second, "the old authority to be refused", func() bool {
		cert := old.Issue(t, certtest.Leaf{Names: []string{envoyID}}).TLS(t)
		conn, err := r.dial(&cert, "http/1.1")
		if err == nil {
			err = hello(conn)
			_ = conn.Close()
		}
		return err != nil
	})
	r.reconnect()
	l.more(20)

	// The authority of tollgate, likewise.
	oldServer, nextServer := r.server, certtest.New(t, "server, next")
	r.envoyTook(func() {
		certtest.Write(t, r.dir, "server-ca.crt", append(append([]byte{}, oldServer.PEM...), nextServer.PEM...))
	})
	r.server = nextServer
	r.issueServer()
	r.serving(second, r.client)
	r.reconnect()
	l.more(20)
	r.envoyTook(func() { certtest.Write(t, r.dir, "server-ca.crt", nextServer.PEM) })
	r.reconnect()
	l.more(20)
	t.Logf("%d requests", l.sent.Load())
}
