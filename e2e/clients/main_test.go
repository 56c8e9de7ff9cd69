// Package clients_test drives the programs that people use against a real Envoy,
// headless: Claude Code and Codex, as npm has them. The ledger has the usage that they
// were told, and no request of these programs was refused or sent twice.
package clients_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// start is a gateway as a newcomer has it: the simulated model, a key.
func start(t *testing.T) *stack.Stack {
	t.Helper()
	return stack.Start(t, stack.Options{Sim: vllmsim.Options{Models: []string{"simulated"}, ToolParser: true}})
}

// slow makes the answers from now on take minutes; what was asked before is
// forgotten.
func slow(t *testing.T, s *stack.Stack) {
	t.Helper()
	s.Sim.Reset()
	tokens, delay := 3000, 40
	if err := s.Sim.Script(vllmsim.Control{Defaults: &vllmsim.Script{Tokens: &tokens, DelayMS: &delay}}); err != nil {
		t.Fatal(err)
	}
}

// program is the path of a client, which `make` has fetched; without it the test
// is skipped by name, with E2E=require it fails.
func program(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(os.Getenv("CLIENTS_BIN"), name)
	_, err := os.Stat(path)
	if os.Getenv("CLIENTS_BIN") != "" && err == nil {
		return path
	}
	if os.Getenv("E2E") == "require" {
		t.Fatalf("no %s: CLIENTS_BIN must name what scripts/fetch_clients.py prints", name)
	}
	t.Skipf("no %s: CLIENTS_BIN must name what scripts/fetch_clients.py prints", name)
	return ""
}

// person is somebody with a URL, a key and a home of their own. Nothing that they
// run reaches the world: all names but this machine's go to a proxy that refuses
// and remembers them.
type person struct {
	t    *testing.T
	s    *stack.Stack
	home string
	trap *trap
	// declined is how many of the client's requests may be refused.
	declined int
}

func newPerson(t *testing.T, s *stack.Stack) *person {
	t.Helper()
	return &person{t: t, s: s, home: t.TempDir(), trap: newTrap(t)}
}

func (p *person) write(name, content string, mode os.FileMode) string {
	p.t.Helper()
	path := filepath.Join(p.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// command is a program in the person's home, with no environment but this.
func (p *person) command(ctx context.Context, path string, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = p.home
	cmd.Env = append([]string{
		"HOME=" + p.home, "TMPDIR=" + p.home, "PATH=" + os.Getenv("PATH"), "TERM=dumb",
		"HTTPS_PROXY=" + p.trap.url, "HTTP_PROXY=" + p.trap.url, "ALL_PROXY=" + p.trap.url, "NO_PROXY=127.0.0.1,localhost",
	}, env...)
	// Its own group: what it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// patience bounds one run of a client on a busy machine.
const patience = 90 * time.Second

// run runs a client to its end, which must be a good one.
func (p *person) run(path string, env []string, args ...string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := p.command(ctx, path, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("%s: %v\nstdout: %.3000s\nstderr: %.3000s", filepath.Base(path), err, &out, &errs)
	}
	return out.String()
}

// interrupt runs a client, and presses Ctrl-C once its answer has begun.
func (p *person) interrupt(path string, env []string, args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := p.command(ctx, path, env, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	stack.Eventually(p.t, patience, "an answer to begin", func() bool {
		for _, truth := range p.s.Sim.Truths() {
			if truth.WrittenTokens() >= 20 {
				return true
			}
		}
		return ctx.Err() != nil
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		p.t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("%s: %v\n%.3000s", filepath.Base(path), err, &out)
	}
}

// checkBooks compares the ledger with what the engine did: every request that
// reached it was asked for once and answered, and costs what the engine made.
func (p *person) checkBooks(want int, end ledger.EndReason) {
	p.t.Helper()
	truths := p.s.Sim.Truths()
	if len(truths) != want {
		p.t.Errorf("%d requests reached the engine, want %d", len(truths), want)
	}
	for _, truth := range truths {
		rec := p.s.Settled(truth.RequestID)
		if rec.Reason != end || rec.Status != http.StatusOK || truth.Status != http.StatusOK {
			p.t.Errorf("%s: the ledger says %s %d, the engine %d; want %s and 200", truth.Endpoint, rec.Reason, rec.Status, truth.Status, end)
		}
		if n := truth.Headers["x-stainless-retry-count"]; len(n) > 0 && n[0] != "0" {
			p.t.Errorf("%s is retry %s", truth.Endpoint, n[0])
		}
		if end == ledger.Complete {
			if rec.Quality != ledger.Exact || rec.Counts.Prompt != int64(truth.PromptTokens) || rec.Counts.Completion != int64(truth.Completion()) {
				p.t.Errorf("%s: the ledger says %d + %d %s, the engine made %d + %d",
					truth.Endpoint, rec.Counts.Prompt, rec.Counts.Completion, rec.Quality, truth.PromptTokens, truth.Completion())
			}
			continue
		}
		p.checkCut(rec, truth)
	}
	if got := p.s.Metric("http_errors_total") - p.s.Metric("http_errors_total", "error_type", "client_gone"); int(got) != p.declined {
		p.t.Errorf("%v requests were refused, want %d", got, p.declined)
	}
	if got := p.s.Metric("tollgate_unmetered_bytes_total"); got != 0 {
		p.t.Errorf("%v bytes were not metered", got)
	}
	p.trap.check(p.t)
}

// checkCut: these routes have no running usage, so what was delivered before the
// client left is estimated from its text. The engine may be a little ahead.
func (p *person) checkCut(rec ledger.Record, truth vllmsim.Truth) {
	p.t.Helper()
	prompt, written := float64(rec.Counts.Prompt), float64(truth.WrittenTokens())
	if got := prompt / float64(truth.PromptTokens); got < 0.5 || got > 1.5 {
		p.t.Errorf("%s: a prompt of %d tokens is charged %v", truth.Endpoint, truth.PromptTokens, prompt)
	}
	if got := float64(rec.Counts.Completion); got < 0.5*written || got > 1.5*written {
		p.t.Errorf("%s: %v of %d generated tokens were written, %v are charged", truth.Endpoint, written, truth.Completion(), got)
	}
	if !truth.Aborted || truth.Finished {
		p.t.Errorf("%s: the engine went on: %d tokens, aborted %v", truth.Endpoint, truth.Completion(), truth.Aborted)
	}
	p.t.Logf("%s: prompt %d of %d, output %d for %d written of %d generated, %s",
		truth.Endpoint, rec.Counts.Prompt, truth.PromptTokens, rec.Counts.Completion, truth.WrittenTokens(), truth.Completion(), rec.Quality)
}

// trap is a proxy that lets nothing pass.
type trap struct {
	url string
	mu  sync.Mutex
	to  []string // guarded by mu
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{url: "http://" + lis.Addr().String()}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.mu.Lock()
		tr.to = append(tr.to, r.Method+" "+r.Host)
		tr.mu.Unlock()
		w.WriteHeader(http.StatusForbidden)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(lis) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return tr
}

func (tr *trap) check(t *testing.T) {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.to) > 0 {
		t.Errorf("the client called out: %s", strings.Join(tr.to, ", "))
	}
}
