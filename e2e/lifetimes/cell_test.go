package lifetimes_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/unixsock"
)

// cell is one end over one protocol, streamed or not, with a gateway of its own.
type cell struct {
	end
	streamed, h2 bool
	age          time.Duration
	s            *stack.Stack
	pid          int             // Envoy's
	known        map[string]bool // request ids that are in the ledger already
}

// cells are all combinations, for requests of that age.
func cells(a time.Duration, module bool) []*cell {
	var out []*cell
	for _, e := range ends(module) {
		for _, h2 := range []bool{false, true} {
			if e.stream {
				out = append(out, &cell{end: e, streamed: true, h2: h2, age: a})
			}
			if e.whole {
				out = append(out, &cell{end: e, h2: h2, age: a})
			}
		}
	}
	return out
}

func (c *cell) name() string {
	return fmt.Sprintf("%s/%s over HTTP/%d", c.end.name, choose(c.streamed, "streamed", "whole"), choose(c.h2, 2, 1))
}

func choose[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// starting bounds how many gateways start at the same moment: that costs CPU,
// all the rest is waiting.
var starting = make(chan struct{}, 3)

func (c *cell) start(t *testing.T) {
	t.Helper()
	starting <- struct{}{}
	defer func() { <-starting }()
	config := c.config
	if strings.Contains(config, "%s") {
		config = fmt.Sprintf(config, c.age)
	} else if config == "" {
		config = "request: {body_timeout: 10m}"
	}
	c.s = stack.Start(t, stack.Options{Workers: 1, Config: config})
	c.pid, c.known = c.s.Envoy.PID(), map[string]bool{}
}

// run lets one request grow old, ends it, and looks at what is left.
func (c *cell) run(t *testing.T) {
	t.Helper()
	if c.before != nil {
		c.before(c)
	}
	o := c.open(t)
	if c.at != nil {
		time.Sleep(c.age) // the silence: nothing else happens on this gateway
		c.at(c, o)
	}
	got := o.wait(t, c.age+time.Minute)
	if c.after != nil {
		c.after(c)
	}
	if want := c.status[choose(c.streamed, 0, 1)]; got != want {
		t.Errorf("the client saw status %d, want %d", got, want)
	}
	c.checkRow(t)
	c.checkEnvoy(t)
}

func (c *cell) body() string {
	sim := c.sim
	if strings.Contains(sim, "%d") {
		sim = fmt.Sprintf(sim, c.age.Milliseconds()/cmp.Or(c.tokens, tokens))
	}
	if sim != "" {
		sim = `,"sim":{` + sim + `}`
	}
	return fmt.Sprintf(`{"model":"tiny","stream":%t,"max_tokens":2000,"messages":[{"role":"user","content":"count for me"}]%s}`, c.streamed, sim)
}

// newRow finds the row of the last request; ok is false while there is none.
func (c *cell) newRow() (rec ledger.Record, ok bool) {
	for id, r := range c.s.Records() {
		if !c.known[id] {
			return r, true
		}
	}
	return rec, false
}

func (c *cell) checkRow(t *testing.T) {
	t.Helper()
	want := c.reason[choose(c.streamed, 0, 1)]
	if want == "" {
		if rec, ok := c.newRow(); ok {
			t.Errorf("a request that the engine never saw has a row: %+v", rec)
		}
		return
	}
	var rec ledger.Record
	stack.Eventually(t, 10*time.Second, "the row to be "+string(want), func() bool {
		found, ok := c.newRow()
		rec = found
		return ok && rec.Reason != "" && rec.Reason != ledger.Aborted
	})
	c.known[rec.RequestID] = true
	if rec.Reason != want {
		t.Errorf("the row says %s, want %s", rec.Reason, want)
	}
	if wrong := c.miscounted(&rec); wrong != "" {
		t.Errorf("%s: %d + %d %s: %s", rec.Reason, rec.Counts.Prompt, rec.Counts.Completion, rec.Quality, wrong)
	}
	if lasted := rec.EndedAt.Sub(rec.StartedAt); !c.uploads && rec.Reason != ledger.GatewayCrash && lasted < c.age-2*time.Second {
		t.Errorf("it lasted %v, want %v", lasted, c.age)
	}
}

// defaultEstimate is request.default_output_estimate, in tokens.
const defaultEstimate = 256

// miscounted compares a row with what the engine made, "" when it is right.
func (c *cell) miscounted(rec *ledger.Record) string {
	truth := c.s.Truth(rec.RequestID)
	written, made := int64(truth.WrittenTokens()), int64(truth.Completion())
	quality, least, most := ledger.Estimated, int64(0), made+made/2
	switch {
	case rec.Reason == ledger.Refused:
		quality, most = ledger.Exact, 0
	case rec.Reason == ledger.Complete, rec.Reason == ledger.EngineAbort:
		quality, least, most = ledger.Exact, made, made
	case c.outlives && !c.streamed:
		// Of an answer that is not streamed a new tollgate knows what the engine makes from
		// then on, and not what it had made: the estimate is the default one.
		most = max(most, defaultEstimate)
	case !c.streamed || truth.Events == 0: // nothing was said: an estimate
	case rec.Reason == ledger.GatewayCrash: // the last checkpoint, 250 ms old at most
		quality, least, most = ledger.Partial, written-1, written
	case rec.Reason == ledger.Quota: // what came beyond it was not delivered
		quality, least, most = ledger.Exact, quotaTokens-40, min(made, quotaTokens)
	default: // running usage came along
		quality, least, most = ledger.Exact, written-1, made
	}
	if got := rec.Counts.Completion; rec.Quality != quality || got < least || got > most {
		return fmt.Sprintf("want %s, %d to %d", quality, least, most)
	}
	return ""
}

// checkEnvoy: it is the same process, has not restarted in place, has written
// no word of a crash, and answers on the one worker that it has.
func (c *cell) checkEnvoy(t *testing.T) {
	t.Helper()
	if !c.s.Envoy.Running() || c.s.Envoy.PID() != c.pid {
		t.Fatalf("Envoy has died:\n%s", c.s.Envoy.Tail(40))
	}
	for _, word := range []string{"Caught ", "Backtrace", "[critical]", "assert failure"} {
		if strings.Contains(c.s.Envoy.Output(), word) {
			t.Errorf("Envoy's log has %q:\n%s", word, c.s.Envoy.Tail(40))
		}
	}
	var info struct {
		State   string `json:"state"`
		Current string `json:"uptime_current_epoch"`
		All     string `json:"uptime_all_epochs"`
	}
	c.admin(t, "/server_info", &info)
	if up, err := time.ParseDuration(info.Current); err != nil || info.State != "LIVE" || info.Current != info.All || up < c.age-time.Second {
		t.Errorf("Envoy is %+v, want LIVE for %v without a restart", info, c.age)
	}
	// The next request sees a gateway like any other. It has a connection of its own.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	body := `{"model":"tiny","max_tokens":2,"messages":[{"role":"user","content":"still there?"}]}`
	a := c.s.Do(client, http.MethodPost, stack.ChatPath, body, "Authorization", "Bearer "+stack.Key)
	if a.StatusCode != http.StatusOK {
		t.Errorf("the next request: %d %.300s", a.StatusCode, a.Bytes)
	}
	c.s.Settled(a.RequestID())
	c.known[a.RequestID()] = true
	c.s.Idle(10 * time.Second)
}

// admin asks Envoy's admin socket.
func (c *cell) admin(t *testing.T, path string, into any) {
	t.Helper()
	resp, err := unixsock.HTTPClient(c.s.Path("state/run/envoy-admin.sock"), 10*time.Second).Get("http://envoy" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v in %.200s", path, err, b)
	}
}
