// Package metering_test is the conformance suite of metering: what "metered
// right" means, as named cases. It runs against tollgate, and against any
// other OpenAI-compatible gateway:
//
//	GATEWAY_URL       the gateway under test; empty: this repository's
//	GATEWAY_KEY       a key that it accepts
//	GATEWAY_MODEL     the model to name (default "tiny")
//	GATEWAY_UPSTREAM  where the suite's own engine listens (default
//	                  127.0.0.1:18000); the gateway under test forwards to it
//	GATEWAY_RECORD    a command that prints the record of the request id it is
//	                  given as JSON: prompt_tokens, completion_tokens,
//	                  cached_tokens, reasoning_tokens, end_reason, quality.
//	                  Empty: records are not checked, bytes are
//	METERING_REPORT   a file that gets the report as a Markdown table
package metering_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run() // its status becomes the program's
	stack.Clean()
}

// Record is what a gateway has recorded of one request. A count is -1 where
// nothing was said.
type Record struct {
	Prompt     int64  `json:"prompt_tokens"`
	Completion int64  `json:"completion_tokens"`
	Cached     int64  `json:"cached_tokens"`
	Reasoning  int64  `json:"reasoning_tokens"`
	Reason     string `json:"end_reason"` // "" while it runs
	Quality    string `json:"quality"`
	Endpoint   string `json:"endpoint"`
}

// Reader finds records by the x-request-id that the client was answered with.
type Reader interface {
	Read(ctx context.Context, requestID string) (rec Record, found bool, err error)
}

// suite is the gateway under test and the engine behind it.
type suite struct {
	url, key, model string
	up              *stack.Upstream
	reader          Reader // nil: records are not checked
	own             *stack.Stack
	h1, h2          *http.Client
	report          report

	mu   sync.Mutex
	read map[string]bool // request ids that a case has had; guarded by mu
}

func (s *suite) saw(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read == nil {
		s.read = map[string]bool{}
	}
	s.read[id] = true
}

func (s *suite) seen(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read[id]
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	opts := vllmsim.Options{TokenDetails: true, ToolParser: false}
	s := &suite{model: "tiny", url: os.Getenv("GATEWAY_URL"), key: os.Getenv("GATEWAY_KEY")}
	if m := os.Getenv("GATEWAY_MODEL"); m != "" {
		s.model = m
	}
	t.Cleanup(func() { s.report.print(t) })
	if s.url != "" {
		listen := os.Getenv("GATEWAY_UPSTREAM")
		if listen == "" {
			listen = "127.0.0.1:18000"
		}
		opts.Models = []string{s.model}
		s.up = stack.StartUpstream(t, listen, opts)
		if cmd := os.Getenv("GATEWAY_RECORD"); cmd != "" {
			s.reader = commandReader(cmd)
		}
		s.clients(t)
		stack.Eventually(t, time.Minute, "the gateway under test to reach the suite's engine on "+listen, s.answers)
		return s
	}
	s.up = stack.StartUpstream(t, "", opts)
	s.own = stack.Start(t, stack.Options{Engine: s.up.Addr})
	s.url, s.key = s.own.URL, stack.Key
	s.reader = &ledgerReader{r: s.own.Ledger(), since: time.Now().Add(-time.Second)}
	s.clients(t)
	return s
}

func (s *suite) clients(t *testing.T) {
	t.Helper()
	s.h1 = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	s.h2 = &http.Client{Transport: &http.Transport{Protocols: h2, DisableCompression: true}}
	t.Cleanup(func() { s.h1.CloseIdleConnections(); s.h2.CloseIdleConnections() })
}

// answers tells whether a plain request goes through.
func (s *suite) answers() bool {
	body := strings.NewReader(`{"model":"` + s.model + `","max_tokens":1,"messages":[{"role":"user","content":"hello"}]}`)
	req, err := http.NewRequest(http.MethodPost, s.url+"/v1/chat/completions", body)
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.key)
	resp, err := s.h1.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// anomalies is tollgate_anomalies_total of one kind, "" for all.
func (s *suite) anomalies(kind string) float64 {
	if s.own == nil {
		return 0
	}
	if kind == "" {
		return s.own.Metric("tollgate_anomalies_total")
	}
	return s.own.Metric("tollgate_anomalies_total", "kind", kind)
}

// ledgerReader reads tollgate's ledger.
type ledgerReader struct {
	r *sqlitestore.Reader

	mu    sync.Mutex
	since time.Time
	known map[string]Record
}

// Read implements [Reader]. What has ended is remembered: reading the whole
// ledger for each of thousands of requests would take minutes.
func (l *ledgerReader) Read(ctx context.Context, requestID string) (Record, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rec, ok := l.known[requestID]; ok && rec.Reason != "" && rec.Reason != string(ledger.Aborted) {
		return rec, true, nil
	}
	if len(l.known) > 200 {
		l.known, l.since = nil, time.Now().Add(-30*time.Second)
	}
	if l.known == nil {
		l.known = map[string]Record{}
	}
	err := l.r.Each(ctx, ledger.Filter{Since: l.since}, func(r ledger.Record) error {
		l.known[r.RequestID] = Record{
			Prompt: r.Counts.Prompt, Completion: r.Counts.Completion, Cached: r.Counts.Cached, Reasoning: r.Counts.Reasoning,
			Reason: string(r.Reason), Quality: string(r.Quality), Endpoint: r.Endpoint,
		}
		return nil
	})
	if err != nil {
		return Record{}, false, fmt.Errorf("read ledger: %w", err)
	}
	rec, ok := l.known[requestID]
	return rec, ok, nil
}

// commandReader asks a command of the user's.
type commandReader string

// Read implements [Reader].
func (c commandReader) Read(ctx context.Context, requestID string) (Record, bool, error) {
	out, err := exec.CommandContext(ctx, string(c), requestID).Output()
	if err != nil {
		return Record{}, false, fmt.Errorf("run GATEWAY_RECORD: %w", err)
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return Record{}, false, nil
	}
	rec := Record{Prompt: -1, Completion: -1, Cached: -1, Reasoning: -1}
	if err := json.Unmarshal(out, &rec); err != nil {
		return Record{}, false, fmt.Errorf("decode the output of GATEWAY_RECORD: %w", err)
	}
	return rec, true, nil
}

// record waits until the record of a request has its final name.
func (s *suite) record(t *testing.T, id string) (Record, bool) {
	t.Helper()
	end := time.Now().Add(5 * time.Second)
	for {
		rec, found, err := s.reader.Read(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		named := found && rec.Reason != "" && rec.Reason != string(ledger.Aborted)
		if named || time.Now().After(end) {
			return rec, found
		}
		time.Sleep(10 * time.Millisecond) // the ledger is another process's
	}
}

// report collects one line for each case.
type report struct {
	mu   sync.Mutex
	rows []row
}

type row struct {
	group, name, route string
	runs               int
	expected, got      string
	ok                 bool
}

func (r *report) add(line row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, line)
}

// print shows the report, and writes it where METERING_REPORT says.
func (r *report) print(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var md, text strings.Builder
	md.WriteString("| group | case | route | runs | expected | |\n|---|---|---|---|---|---|\n")
	bad, runs := 0, 0
	for _, l := range r.rows {
		verdict := "ok"
		if !l.ok {
			verdict = "**" + l.got + "**"
			bad++
		}
		runs += l.runs
		esc := func(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
		fmt.Fprintf(&md, "| %s | %s | `%s` | %d | %s | %s |\n", l.group, esc(l.name), l.route, l.runs, esc(l.expected), esc(verdict))
		fmt.Fprintf(&text, "%-4s %-10s %-52s %-26s ×%-5d %s\n", map[bool]string{true: "ok", false: "FAIL"}[l.ok], l.group, l.name, l.route, l.runs, l.expected)
	}
	fmt.Fprintf(&md, "\n%d cases, %d requests, %d failed.\n", len(r.rows), runs, bad)
	t.Logf("metering conformance: %d cases, %d requests, %d failed\n%s", len(r.rows), runs, bad, text.String())
	if path := os.Getenv("METERING_REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(md.String()), 0o600); err != nil {
			t.Errorf("write report: %v", err)
		}
	}
}
