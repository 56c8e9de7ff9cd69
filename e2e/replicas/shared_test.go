package replicas_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/envoy"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// site is several replicas behind several Envoys: every Envoy may send each part of
// a request to another replica.
type site struct {
	t        *testing.T
	redis    *stack.Redis
	sim      *vllmsim.Sim
	keys     string         // the file
	replicas []*stack.Stack // whose tollgate runs
	edges    []*stack.Stack // whose Envoy runs
}

// startSite starts everything and waits until each Envoy answers.
func startSite(t *testing.T, replicas, edges int, timeout time.Duration, rateLimit, keyFile string) *site {
	t.Helper()
	s := &site{t: t, redis: stack.StartRedis(t)}
	dir := func() string { // short: paths of sockets are
		d, err := os.MkdirTemp("", "r") //nolint:usetesting // t.TempDir is too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(d) })
		return d
	}
	s.keys = dir() + "/keys.json"
	if err := os.WriteFile(s.keys, []byte(keyFile), 0o600); err != nil {
		t.Fatal(err)
	}
	o := stack.Options{
		Config:   fmt.Sprintf("store: {kind: redis, redis: {addresses: [%q], timeout: %v}}\nrate_limit: {%s}", s.redis.Addr, timeout, rateLimit),
		KeysFile: s.keys, Sim: vllmsim.Options{MaxTruths: 100_000}, NoStart: true,
	}
	var remote envoy.Remote
	for range replicas {
		o.Dir = dir()
		r := stack.Start(t, o)
		if s.sim == nil {
			s.sim = r.Sim
			o.Engine = r.Cfg.EngineAddresses()[0]
		}
		r.Tollgate.Start()
		s.replicas = append(s.replicas, r)
		remote.Addresses = append(remote.Addresses, "unix:"+r.Cfg.StateDir)
	}
	o.Remote = &remote
	for range edges {
		o.Dir = dir()
		e := stack.Start(t, o)
		e.Envoy.Start()
		s.edges = append(s.edges, e)
	}
	for _, e := range s.edges {
		e.Ready()
	}
	for _, r := range s.replicas {
		stack.Eventually(t, 20*time.Second, "all replicas to be there", func() bool { return r.Metric("tollgate_store_partitioned") == 0 })
	}
	return s
}

// records are the rows of all replicas that have one with the id, by request id; ok
// tells that all have ended with their last name.
func (s *site) records() (all map[string][]ledger.Record, ok bool) {
	s.t.Helper()
	all, ok = map[string][]ledger.Record{}, true
	for _, r := range s.replicas {
		for id, rec := range r.Records() {
			all[id] = append(all[id], rec)
			ok = ok && !rec.Open() && rec.Reason != ledger.Aborted
		}
	}
	return all, ok
}

// agree waits until every row has ended, and holds the sum of all ledgers against
// what the engine did. Requests in but differ: they may be counted less exactly.
func (s *site) agree(but map[string]bool) {
	s.t.Helper()
	stack.Eventually(s.t, 20*time.Second, "all rows to end", func() bool { _, ok := s.records(); return ok })
	rows, _ := s.records()
	var booked, made int64
	for _, truth := range s.sim.Truths() {
		if but[truth.RequestID] {
			continue
		}
		made += int64(truth.PromptTokens + truth.Completion())
		if n := len(rows[truth.RequestID]); n != 1 {
			s.t.Errorf("request %s: %d rows", truth.RequestID, n)
		}
	}
	for id, recs := range rows {
		if !but[id] {
			for _, r := range recs {
				booked += max(0, r.Counts.Prompt) + max(0, r.Counts.Completion)
			}
		}
	}
	s.t.Logf("%d rows in %d ledgers, %d tokens booked, %d made", len(rows), len(s.replicas), booked, made)
	if booked != made {
		s.t.Errorf("booked %d tokens, the engine made %d", booked, made)
	}
}

// idle waits until nothing is held.
func (s *site) idle(within time.Duration) {
	s.t.Helper()
	stack.Eventually(s.t, within, "all leases to be back", func() bool {
		for _, r := range s.replicas {
			if r.Tollgate.Running() && r.Metric("tollgate_leases_live") != 0 {
				return false
			}
		}
		return true
	})
}

// load sends n requests through all Envoys, a third of which are streams that their
// client leaves in the middle, and counts the answers by status.
func (s *site) load(n, clients int) map[int]int {
	s.t.Helper()
	var (
		mu     sync.Mutex
		codes  = map[int]int{}
		next   atomic.Int64
		worker sync.WaitGroup
	)
	for c := range clients {
		worker.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(c)))
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				code := s.one(s.edges[int(i)%len(s.edges)], i%3 == 0, random)
				mu.Lock()
				codes[code]++
				mu.Unlock()
			}
		})
	}
	worker.Wait()
	return codes
}

// one sends one request and returns its status, 0 where the connection broke.
func (s *site) one(e *stack.Stack, cut bool, random *rand.Rand) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	body, tokens := stack.Chat(random.IntN(2) == 0, 1+random.IntN(8), ""), 1+random.IntN(20)
	if cut { // where nothing is on its way, so that the engine's account is exact
		body = stack.Chat(true, 200, fmt.Sprintf(`"pause_after":%d`, tokens))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL+stack.ChatPath, strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+secret("ann"))
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.HTTP1.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	if cut {
		for in := bufio.NewScanner(resp.Body); tokens > 0 && in.Scan(); {
			if strings.Contains(in.Text(), `"content":"`) && !strings.Contains(in.Text(), `"content":""`) {
				tokens--
			}
		}
		return resp.StatusCode // and leaves
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

// TestAnyReplicaServesAnyRequest: two and five replicas behind one Envoy, and three
// behind three. Nothing is refused, and the ledgers together are the truth.
func TestAnyReplicaServesAnyRequest(t *testing.T) {
	for _, of := range []struct{ replicas, edges int }{{2, 1}, {5, 1}, {3, 3}} {
		t.Run(fmt.Sprintf("%d behind %d", of.replicas, of.edges), func(t *testing.T) {
			n := 330
			if long() {
				n = 10_000
			}
			s := startSite(t, of.replicas, of.edges, calm, "", keys("ann", ""))
			begun := time.Now()
			codes := s.load(n, 16)
			if codes[http.StatusOK] != n {
				t.Errorf("statuses: %v, want %d times 200", codes, n)
			}
			s.idle(5 * time.Second)
			s.agree(nil)
			t.Logf("%d requests, a third cut, in %v: %v", n, time.Since(begun).Round(time.Millisecond), codes)
			used := 0
			for _, r := range s.replicas {
				if len(r.Records()) > 0 {
					used++
				}
			}
			if used < 2 {
				t.Errorf("%d replicas had requests: the test shows nothing", used)
			}
		})
	}
}

// listed asks one replica's page, by whichever Envoy sends it there, for the live
// requests.
func (s *site) listed() (ids []string) {
	s.t.Helper()
	var v struct {
		Requests []struct {
			RequestID string `json:"request_id"`
		} `json:"requests"`
	}
	a := s.edges[0].Admin(http.MethodGet, "/admin/requests", "")
	if err := json.Unmarshal(a.Bytes, &v); err != nil || a.StatusCode != http.StatusOK {
		s.t.Fatalf("list: %d %s", a.StatusCode, a.Bytes)
	}
	for _, r := range v.Requests {
		ids = append(ids, r.RequestID)
	}
	return ids
}

// TestOneReplicaSpeaksForAll: whichever replica is asked lists all live requests,
// cancels any of them, and a key that is removed at one ends its streams at all.
func TestOneReplicaSpeaksForAll(t *testing.T) { //nolint:gocyclo // one story, told in order
	const streams = 12
	s := startSite(t, 3, 1, calm, "", keys("ann", "", "bob", ""))
	edge := s.edges[0]
	var ends []<-chan error
	var ids []string
	for i := range streams {
		who := "ann"
		if i%2 == 1 {
			who = "bob"
		}
		p := &pair{t: t, sim: s.sim}
		a, end := p.hold(edge, who)
		if a.StatusCode != http.StatusOK {
			t.Fatalf("stream %d: %d", i, a.StatusCode)
		}
		ends, ids = append(ends, end), append(ids, a.RequestID())
	}
	for range 6 { // each time another replica may answer
		if got := len(s.listed()); got != streams {
			t.Errorf("a replica lists %d requests, want %d", got, streams)
		}
	}
	for i := range 6 {
		if a := edge.Admin(http.MethodDelete, "/admin/requests/"+ids[i], ""); a.StatusCode != http.StatusOK {
			t.Errorf("cancel %d: %d %s", i, a.StatusCode, a.Bytes)
		}
		if err := within(t, ends[i]); err == nil {
			t.Error("a cancelled stream ended well")
		}
	}
	if a := edge.Admin(http.MethodDelete, "/admin/keys/bob", ""); a.StatusCode != http.StatusOK && a.StatusCode != http.StatusNoContent {
		t.Fatalf("remove key: %d %s", a.StatusCode, a.Bytes)
	}
	removed := time.Now()
	for i := 7; i < streams; i += 2 {
		if err := within(t, ends[i]); err == nil {
			t.Error("a stream of a removed key ended well")
		}
	}
	t.Logf("all streams of the removed key were cut after %v", time.Since(removed).Round(time.Millisecond))
	s.sim.Release()
	for i := 6; i < streams; i += 2 {
		if err := within(t, ends[i]); err != nil {
			t.Errorf("a stream of another key: %v", err)
		}
	}
	s.idle(5 * time.Second)
	rows, _ := s.records()
	for i, id := range ids {
		want := []ledger.EndReason{ledger.Cancelled, ledger.Revoked, ledger.Complete}[map[bool]int{true: 0, false: 1 + (i+1)%2}[i < 6]]
		if recs := rows[id]; len(recs) != 1 || recs[0].Reason != want {
			t.Errorf("request %d: %+v, want %s", i, recs, want)
		}
	}
}
