// Package replicas_test proves through two real Envoys, two replicas of the
// gateway and a real Redis what several replicas promise: limits hold over all
// of them, a dead replica's leases come back, and an outage of Redis costs
// neither time nor more than a share.
//
// PROOF=1 runs the long forms; figures are printed with -v.
package replicas_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// long says that the long forms are asked for, alone on their machine.
func long() bool { return os.Getenv("PROOF") != "" }

// beside lets a test that mostly waits run beside others of its kind.
func beside(t *testing.T) {
	t.Helper()
	if !long() {
		t.Parallel()
	}
}

// secret is the key whose id it is given.
func secret(id string) string { return "sk-test-" + id + "-0123456789abcdef" }

// keys is a key file of ids with further fields, and the admin.
func keys(idAndFields ...string) string {
	var b strings.Builder
	b.WriteString(`[{"key":"` + stack.AdminKey + `","id":"root","user":"admin"}`)
	for i := 0; i+1 < len(idAndFields); i += 2 {
		id, more := idAndFields[i], idAndFields[i+1]
		if more != "" {
			more = "," + more
		}
		fmt.Fprintf(&b, ",\n{\"key\":%q,\"id\":%q,\"user\":%q%s}", secret(id), id, id, more)
	}
	return b.String() + "]\n"
}

// pair is two replicas, an Envoy before each, and what they share.
type pair struct {
	t     *testing.T
	redis *stack.Redis
	sim   *vllmsim.Sim
	edges [2]*stack.Stack
}

// startPair starts two replicas. timeout is the budget of a call to Redis: a
// long one where no outage is wanted, however busy the machine is.
func startPair(t *testing.T, timeout time.Duration, rateLimit, keyFile string) *pair {
	t.Helper()
	p := &pair{t: t, redis: stack.StartRedis(t)}
	o := stack.Options{
		Config: fmt.Sprintf("store: {kind: redis, redis: {addresses: [%q], timeout: %v}}\nrate_limit: {%s}", p.redis.Addr, timeout, rateLimit),
		Keys:   keyFile, Sim: vllmsim.Options{MaxTruths: 100000},
	}
	p.edges[0] = stack.Start(t, o)
	p.sim = p.edges[0].Sim
	o.Engine = p.edges[0].Cfg.EngineAddresses()[0]
	p.edges[1] = stack.Start(t, o)
	return p
}

// both runs something for each replica.
func (p *pair) both(do func(s *stack.Stack)) {
	for _, s := range p.edges {
		do(s)
	}
}

// idle waits until nothing is held, as both replicas see it.
func (p *pair) idle(limit time.Duration) {
	p.t.Helper()
	p.both(func(s *stack.Stack) { s.Idle(limit) })
}

// view is what GET /admin/limits of a replica says of a key.
func (p *pair) view(s *stack.Stack, id string) limit.View {
	p.t.Helper()
	a := s.Admin(http.MethodGet, "/admin/limits/"+id, "")
	var v struct {
		Now limit.View `json:"now"`
	}
	if err := json.Unmarshal(a.Bytes, &v); err != nil || a.StatusCode != http.StatusOK {
		p.t.Fatalf("limits of %s: %d %s", id, a.StatusCode, a.Bytes)
	}
	return v.Now
}

// spent is the sum of both ledgers for a key, once every record has ended, and
// how many requests were sent to the engine.
func (p *pair) spent(id string) (tokens, requests int64) {
	p.t.Helper()
	p.both(func(s *stack.Stack) {
		stack.Eventually(p.t, 10*time.Second, "all records to end", func() bool {
			for _, r := range s.Records() {
				if r.Open() || r.Reason == ledger.Aborted {
					return false
				}
			}
			return true
		})
		for _, r := range s.Records() {
			if r.KeyID == id {
				tokens += max(0, r.Counts.Prompt) + max(0, r.Counts.Completion)
				requests++
			}
		}
	})
	return tokens, requests
}

// served is what the engine did for a group.
func (p *pair) served(group string) (tokens, requests int64) {
	for _, truth := range p.sim.Truths() {
		if truth.Group == group {
			tokens += int64(truth.PromptTokens + truth.Completion())
			requests++
		}
	}
	return tokens, requests
}

// shot is one request as its client saw it.
type shot struct {
	at    time.Time
	first time.Duration // until the first byte of the body
	code  int           // status; 0 where none came
	why   string        // error.code of a refusal, or what went wrong
}

// patience is the longest that a client waits; a request that takes longer hangs.
const patience = 15 * time.Second

// shoot sends a chat request and reads its answer to the end.
func shoot(s *stack.Stack, id, body string) shot {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r := shot{at: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+stack.ChatPath, strings.NewReader(body))
	if err != nil {
		r.why = err.Error()
		return r
	}
	req.Header.Set("Authorization", "Bearer "+secret(id))
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.HTTP1.Do(req)
	if err != nil {
		r.why = err.Error()
		return r
	}
	defer func() { _ = resp.Body.Close() }()
	in := bufio.NewReader(resp.Body)
	_, _ = in.Peek(1)
	r.first = time.Since(r.at)
	text, err := io.ReadAll(in)
	r.code = resp.StatusCode
	switch {
	case err != nil:
		r.code, r.why = 0, err.Error()
	case r.code != http.StatusOK:
		r.why = (&stack.Answer{Bytes: text}).ErrorCode()
	}
	return r
}

var (
	tooFast    = stack.Problem{Status: 429, Type: "rate_limit_error", Code: "rate_limit_exceeded"}
	quotaSpent = stack.Problem{Status: 429, Type: "insufficient_quota", Code: "insufficient_quota"}
)
