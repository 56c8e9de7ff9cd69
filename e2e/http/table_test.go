// Package http_test holds the edge against one table: whatever form a request
// takes on the wire, the client gets the status and the shape of body that the
// table says, nothing unchecked reaches the engine, and nothing is delivered
// without a row in the ledger.
package http_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run() // its status becomes the program's
	stack.Clean()
}

// outcome is what must come of a request.
type outcome struct {
	status int
	shape  string // see answer.shape; on /v1/messages errors have Anthropic's
	// row: the request reached the engine and is in the ledger.
	row bool
}

var (
	answered   = outcome{200, "answer", true}
	missing    = outcome{400, "invalid_request", false}
	compressed = outcome{415, "unsupported_media_type", false}
	noGRPC     = outcome{415, "unsupported_media_type", false}
	noKey      = outcome{401, "invalid_api_key", false}
	// wrongType is vLLM's own word on a content type that it does not read.
	wrongType = outcome{400, "400", true}
)

// table is the conformance table. A request is looked up from the top; "" in a
// column stands for everything. What is no row is answered.
var table = []struct {
	proto   protocol
	framing framing
	kind    string // content-type
	coding  string // content-encoding
	want    outcome
}{
	// What Envoy would answer with 200, whatever is said to it.
	{"", "", "application/grpc", "", noGRPC},
	{"", "", "application/grpc-web+proto", "", noGRPC},
	// The key is looked at before a byte of the body, whatever it will be.
	{"", unfinished, "", "", noKey},
	// What cannot be read cannot be checked.
	{"", "", "", "gzip", compressed},
	{"", "", "", "br", compressed},
	{"", "", "", "identity, x-unknown", compressed},
	// There is nothing to be checked, and nothing goes to the engine.
	{"", noBody, "", "", missing},
	{"", zeroLength, "", "", missing},
	{"", trailersOnly, "", "", missing},
	{"", emptyData, "", "", missing},
	// The rest is the engine's: it reads JSON only.
	{"", "", "text/plain", "", wrongType},
	{"", "", "none", "", wrongType},
	{"", "", "application/x-www-form-urlencoded", "", wrongType},
}

var (
	protocols = []protocol{http10, http11, h2, h2c}
	framings  = []framing{length, chunked, byteByByte, noBody, zeroLength, trailers, trailersOnly, emptyData, expect, unfinished}
	kinds     = []string{"application/json", "application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", "none", "application/grpc", "application/grpc-web+proto"}
	codings   = []string{"none", "identity", "gzip", "br", "identity, x-unknown"}
	routes    = []struct{ path, body string }{
		{"/v1/chat/completions", `{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}`},
		{"/v1/messages", `{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}`},
	}
)

func expected(proto protocol, f framing, kind, coding string) outcome {
	for _, row := range table {
		if (row.proto == "" || row.proto == proto) && (row.framing == "" || row.framing == f) &&
			(row.kind == "" || row.kind == kind) && (row.coding == "" || row.coding == coding) {
			return row.want
		}
	}
	return answered
}

// anthropic is the shape of the gateway's errors on Anthropic's routes.
func anthropic(o outcome) string {
	switch {
	case o.row:
		return o.shape // the engine's
	case o.status == 401:
		return "anthropic authentication_error"
	}
	return "anthropic invalid_request_error"
}

func TestEveryFormOfARequest(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	checked := map[string]want{}
	for _, route := range routes {
		for _, proto := range protocols {
			for _, f := range framings {
				if proto == http10 && !slices.Contains([]framing{length, byteByByte, noBody, zeroLength, unfinished}, f) {
					continue // HTTP/1.0 has no chunks, no trailers and no interim answers
				}
				for _, kind := range kinds {
					for _, coding := range codings {
						w := expected(proto, f, kind, coding)
						r := request{proto: proto, path: route.path, body: route.body, framing: f, headers: headersOf(f, kind, coding)}
						if w.row = w.row && route.path != ""; strings.HasPrefix(route.path, "/v1/messages") {
							w.shape = anthropic(w)
						}
						name := fmt.Sprintf("%s, %s, body %s, type %s, coding %s", route.path, proto, f, kind, coding)
						id := check(t, s, name, r, w)
						checked[id] = want{name, w}
					}
				}
			}
		}
	}
	t.Logf("%d requests", len(checked))
	witnesses(t, s, checked)
}

func headersOf(f framing, kind, coding string) [][2]string {
	key := stack.Key
	if f == unfinished {
		key = "sk-nobody-0123456789abcdef"
	}
	h := [][2]string{{"authorization", "Bearer " + key}}
	if kind != "none" {
		h = append(h, [2]string{"content-type", kind})
	}
	if coding != "none" {
		h = append(h, [2]string{"content-encoding", coding})
	}
	return h
}

// check sends a request, compares what comes, and returns its id.
func check(t *testing.T, s *stack.Stack, name string, r request, w outcome) string {
	t.Helper()
	a := send(t, s.Addr(), r)
	if a.status != w.status || a.shape() != w.shape {
		t.Errorf("%s:\ngot %d %s (%s) %.200s\nwant %d %s", name, a.status, a.shape(), a.fault, a.body, w.status, w.shape)
	}
	if a.fault != "" && a.status == 200 {
		t.Errorf("%s: a 200 that is not whole: %s", name, a.fault)
	}
	if continued := slices.Contains(a.interim, 100); r.framing == expect && r.proto != h2 && a.status == 200 && !continued {
		t.Errorf("%s: no 100 before the body: %v", name, a.interim)
	}
	id := a.header.Get("x-request-id")
	if id == "" {
		t.Errorf("%s: no x-request-id in the answer", name)
	}
	return id
}

// want is what must be known of a request.
type want struct {
	name string
	outcome
}

// witnesses holds the three accounts against each other: the engine's, the
// ledger's and the access log's.
func witnesses(t *testing.T, s *stack.Stack, checked map[string]want) {
	t.Helper()
	statuses := accessStatuses(t, s, checked)
	seen := map[string]vllmsim.Truth{}
	for _, truth := range s.Sim.Truths() {
		seen[truth.RequestID] = truth
		if _, ok := checked[truth.RequestID]; !ok {
			t.Errorf("the engine saw the request %q on %s, which nobody knows of", truth.RequestID, truth.Endpoint)
		}
	}
	rows := s.Records()
	for id, w := range checked {
		truth, reached := seen[id]
		row, booked := rows[id]
		if reached != w.row || booked != w.row {
			t.Errorf("%s: seen by the engine: %v, in the ledger: %v, want %v", w.name, reached, booked, w.row)
			continue
		}
		if got, has := statuses[id]; has && got != w.status {
			t.Errorf("%s: the access record has status %d, the client saw %d", w.name, got, w.status)
		}
		if !w.row {
			continue
		}
		w.compare(t, row, truth)
	}
	if n := s.Metric("tollgate_unmetered_bytes_total"); n != 0 {
		t.Errorf("%v bytes passed unmetered", n)
	}
	s.Idle(5 * time.Second)
}

// compare holds a row against what the engine knows.
func (w *want) compare(t *testing.T, row ledger.Record, truth vllmsim.Truth) {
	t.Helper()
	if row.Status != w.status || row.Open() || row.Quality != ledger.Exact {
		t.Errorf("%s: status %d, %s %s in the ledger", w.name, row.Status, row.Reason, row.Quality)
	}
	if got := row.Counts.Completion; w.status == 200 && got != int64(truth.Completion()) {
		t.Errorf("%s: %d tokens in the ledger, the engine made %d", w.name, got, truth.Completion())
	}
	if _, has := truth.Headers["authorization"]; has {
		t.Errorf("%s: the engine saw the key", w.name)
	}
}

// accessStatuses reads statuses from the access records, once those of all requests
// that reached the engine are there. Of refusals that one address gets by the
// hundred the log has a summary only.
func accessStatuses(t *testing.T, s *stack.Stack, checked map[string]want) map[string]int {
	t.Helper()
	statuses := map[string]int{}
	stack.Eventually(t, 30*time.Second, "all access records", func() bool {
		clear(statuses)
		f, err := os.Open(s.Path("logs/gateway.log"))
		if err != nil {
			return false
		}
		defer func() { _ = f.Close() }()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			var line struct {
				Message string `json:"@message"`
				ID      string `json:"request_id"`
				Status  int    `json:"status"`
				Path    string `json:"endpoint"`
			}
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "request" && line.Path != "/health" && line.Path != "/v1/models" {
				statuses[line.ID] = line.Status
			}
		}
		for id, w := range checked {
			if _, has := statuses[id]; w.row && !has {
				return false
			}
		}
		return true
	})
	return statuses
}
