//go:build scale

package scale_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/certtest"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

const (
	// engineAddress and tollgateAddress are not loopback, which control planes refuse.
	engineAddress   = "10.9.9.9:8000"
	tollgateAddress = "10.9.9.8:9943"
	// serverName is the name of tollgate in the manifests, envoyName that in the
	// certificate of the Envoys.
	serverName = "tollgate.tollgate.svc.cluster.local"
	envoyName  = "gateway.tollgate.svc.cluster.local"
)

// edge is a tollgate behind an Envoy that somebody else configures.
type edge struct {
	*stack.Stack
	t    *testing.T
	sims []*vllmsim.Sim // the engines
	// name stands in failures: one test proves several edges.
	name  string
	certs certificates
	hosts string // further names that the Envoy knows
}

// certificates are files in a folder: ca.crt; server.crt and server.key of tollgate;
// client.crt and client.key of an Envoy.
type certificates struct{ dir string }

func (c certificates) path(name string) string { return filepath.Join(c.dir, name) }

// text is what is in a file.
func (c certificates) text(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(c.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// issue makes an authority and the certificates of both sides.
func issue(t *testing.T) certificates {
	t.Helper()
	c, authority := certificates{dir: t.TempDir()}, certtest.New(t, "test")
	certtest.Write(t, c.dir, "ca.crt", authority.PEM)
	authority.Issue(t, certtest.Leaf{Names: []string{serverName}}).Write(t, c.dir, "server")
	authority.Issue(t, certtest.Leaf{Names: []string{envoyName}}).Write(t, c.dir, "client")
	return c
}

// startTollgate starts an engine and a tollgate that listens for Envoys elsewhere, and no
// Envoy. The test sets URL.
func startTollgate(t *testing.T, name string) *edge {
	t.Helper()
	certs := issue(t)
	sim := startEngine(t, engineAddress, engineOptions)
	// Short: paths of sockets are.
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := fmt.Sprintf(`
service:
  listen: %s
  tls: {cert_file: %q, key_file: %q, client_ca_file: %q, client_ids: [%s]}
`, tollgateAddress, certs.path("server.crt"), certs.path("server.key"), certs.path("ca.crt"), envoyName)
	e := &edge{t: t, sims: []*vllmsim.Sim{sim}, name: name, certs: certs, Stack: stack.Start(t, stack.Options{Engine: engineAddress, NoStart: true, Dir: dir, Config: config})}
	e.Tollgate.Start()
	return e
}

// engineOptions: pickers want the counters of adapters.
var engineOptions = vllmsim.Options{Models: []string{"tiny"}, MaxTruths: 50_000, EnableLoRA: true}

// startEngine serves a simulated engine at an address of this host, until the end of the
// test.
func startEngine(t *testing.T, at string, o vllmsim.Options) *vllmsim.Sim {
	t.Helper()
	lis, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	sim := vllmsim.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sim.Serve(ctx, lis)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return sim
}

// truths are those of all engines.
func (e *edge) truths() []vllmsim.Truth {
	var all []vllmsim.Truth
	for _, sim := range e.sims {
		all = append(all, sim.Truths()...)
	}
	return all
}

// release lets every paused stream go on, and returns how many there were.
func (e *edge) release() int {
	n := 0
	for _, sim := range e.sims {
		n += sim.Release()
	}
	return n
}

// agree waits until every row has ended and nothing is held, and holds each row against
// what the engine did for the request. It returns how many rows it has compared.
func (e *edge) agree() int {
	e.t.Helper()
	stack.Eventually(e.t, 30*time.Second, "all rows to end", func() bool {
		for _, r := range e.Records() {
			if r.Open() || r.Reason == ledger.Aborted {
				return false
			}
		}
		return true
	})
	e.Idle(15 * time.Second)
	rows, made := e.Records(), map[string]bool{}
	compared := 0
	for _, truth := range e.truths() {
		row, ok := rows[truth.RequestID]
		made[truth.RequestID] = true
		if !ok {
			e.t.Errorf("%s: the engine has answered request %s with %d, and it is in no row", e.name, truth.RequestID, truth.Status)
			continue
		}
		compared++
		prompt, completion := int64(truth.PromptTokens), int64(truth.WrittenTokens())
		if truth.Status != 200 && truth.Status != 0 { // 0: broken before the answer, after work of unknown size
			prompt, completion = 0, 0
		}
		if max(0, row.Counts.Prompt) != prompt || max(0, row.Counts.Completion) != completion {
			e.t.Errorf("%s: %s (%s, %s): the ledger says %d + %d, the engine %d + %d", e.name, truth.Endpoint, row.Reason, row.Quality, row.Counts.Prompt, row.Counts.Completion, prompt, completion)
		}
	}
	for id, row := range rows {
		if !made[id] && row.Reason != ledger.Refused {
			e.t.Errorf("%s: row %s (%s) is of no request at the engine", e.name, id, row.Reason)
		}
	}
	for _, name := range []string{"tollgate_tickets_refused_total", "tollgate_unmetered_bytes_total", "tollgate_witness_disagreements_total", "tollgate_stream_panics_total"} {
		if n := e.Metric(name); n != 0 {
			e.t.Errorf("%s: %s is %v\n%s", e.name, name, n, e.lines("disagree"))
		}
	}
	e.t.Logf("%s: %d rows compared with the engine, 0 leases left", e.name, compared)
	return compared
}

// lines are those of tollgate's log that have a word.
func (e *edge) lines(word string) string {
	var found []string
	for line := range strings.Lines(e.Tollgate.Output()) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return strings.Join(found[:min(len(found), 5)], "")
}
