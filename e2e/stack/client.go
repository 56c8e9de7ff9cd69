package stack

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/unixsock"
)

// Chat is the body of a chat request to "tiny": max bounds its tokens, sim is
// the inside of the script object.
func Chat(stream bool, maxTokens int, sim string) string {
	return fmt.Sprintf(`{"model":"tiny","stream":%t,"max_tokens":%d,"messages":[{"role":"user","content":"count for me"}],"sim":{%s}}`,
		stream, maxTokens, sim)
}

// ChatPath is where [Chat] goes.
const ChatPath = "/v1/chat/completions"

// Open sends a chat request and returns its answer with the body unread, and
// what ends it; the test's end and a minute do too.
func (s *Stack) Open(c *http.Client, key, body string) (*Answer, context.CancelFunc) {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+ChatPath, strings.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		cancel()
		s.tb.Fatalf("open a stream: %v", err)
	}
	s.tb.Cleanup(func() { cancel(); _ = resp.Body.Close() })
	return &Answer{Response: resp}, cancel
}

// Addr is host:port of the edge.
func (s *Stack) Addr() string { return strings.TrimPrefix(s.URL, "http://") }

// Raw writes bytes on a connection of its own and reads one answer; the
// request decides what "Host" and all else is. It fails the test only where
// the edge cannot be reached: an edge that closes without an answer is an
// Answer with an Err and no Response.
func (s *Stack) Raw(request string) *Answer {
	s.tb.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return &Answer{Err: err}
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return &Answer{Err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	a := &Answer{Response: resp}
	a.Bytes, a.Err = io.ReadAll(resp.Body)
	return a
}

// RawAll writes bytes on a connection of its own and returns all that comes back
// until the edge closes it, 15 s at most.
func (s *Stack) RawAll(request string) string {
	s.tb.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return ""
	}
	b, _ := io.ReadAll(conn) // what came until then is the answer
	return string(b)
}

// From is an HTTP/1 client whose connections come from a loopback address
// such as 127.0.0.2.
func (s *Stack) From(address string) *http.Client {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	t := &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 256, DisableCompression: true}
	s.tb.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// Command runs a command of tollgate on the stack's configuration and returns
// its exit code and what it printed.
func (s *Stack) Command(args ...string) (code int, stdout, stderr string) {
	s.tb.Helper()
	cmd := exec.Command(Binary(s.tb, "tollgate"), append([]string{"--config", s.Path("config.yaml")}, args...)...) //nolint:gosec // built for the test
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.tb.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// Idle waits until every lease and every reservation is back.
func (s *Stack) Idle(limit time.Duration) {
	s.tb.Helper()
	Eventually(s.tb, limit, "all leases and reservations to be back", func() bool {
		return s.Metric("tollgate_leases_live") == 0 && s.Metric("tollgate_tokens_reserved") == 0
	})
}

// Problem is what an error answer says, for comparisons.
type Problem struct {
	Status            int
	Type, Code, Param string
}

// Refusal reads an answer as one of the gateway's OpenAI-shaped errors and
// checks all that every such answer must have.
func Refusal(tb testing.TB, a *Answer) Problem {
	tb.Helper()
	if a.Response == nil {
		tb.Errorf("no answer: %v", a.Err)
		return Problem{}
	}
	p := Problem{Status: a.StatusCode}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		tb.Errorf("content-type of an error: %q", got)
	}
	if n := len(a.Header.Values("X-Request-Id")); n != 1 || a.RequestID() == "" {
		tb.Errorf("an error has %d request ids", n)
	}
	body := a.JSON()
	e, ok := body["error"].(map[string]any)
	if !ok || len(body) != 1 || len(e) != 4 {
		tb.Errorf("not an OpenAI error body: %.300s", a.Bytes)
		return p
	}
	if m, _ := e["message"].(string); m == "" {
		tb.Errorf("no message in %.300s", a.Bytes)
	}
	p.Type, _ = e["type"].(string)
	p.Code, _ = e["code"].(string)
	p.Param, _ = e["param"].(string)
	return p
}

// WantProblem compares an error answer with what it must be.
func WantProblem(tb testing.TB, a *Answer, want Problem) {
	tb.Helper()
	if diff := cmp.Diff(want, Refusal(tb, a)); diff != "" {
		tb.Errorf("problem (-want +got):\n%s%.400s", diff, a.Bytes)
	}
}

// AdminOf returns a function that asks an Envoy's admin page; errors are the
// empty string.
func AdminOf(tb testing.TB, socket string) func(path string) string {
	tb.Helper()
	client := unixsock.HTTPClient(socket, 5*time.Second)
	return func(path string) string {
		resp, err := client.Get("http://envoy" + path)
		if err != nil {
			return ""
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
}
