// Package attack asks for far more than a quota has, in every way at once: it is
// the same attack on each store and on one gateway or several.
package attack

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// Quota is what each key of an attack has, and Most what may be used of it: the
// last prompt is known when the engine has read it, not before.
const (
	Quota = 5000
	Most  = Quota * 102 / 100
)

// forms are requests without a limit of their own, or with a large one: path and
// body, with a place for what the script says.
var forms = map[string]struct{ path, body string }{
	"chat streamed":            {"/v1/chat/completions", `{"model":"tiny","stream":true,"messages":[{"role":"user","content":"count for me"}],"sim":{%s}}`},
	"chat streamed n=3":        {"/v1/chat/completions", `{"model":"tiny","stream":true,"n":3,"messages":[{"role":"user","content":"count for me"}],"sim":{%s}}`},
	"chat whole":               {"/v1/chat/completions", `{"model":"tiny","messages":[{"role":"user","content":"count for me"}],"sim":{%s}}`},
	"chat whole n=3":           {"/v1/chat/completions", `{"model":"tiny","n":3,"messages":[{"role":"user","content":"count for me"}],"sim":{%s}}`},
	"completions streamed":     {"/v1/completions", `{"model":"tiny","stream":true,"max_tokens":2000,"prompt":"count","sim":{%s}}`},
	"completions streamed n=3": {"/v1/completions", `{"model":"tiny","stream":true,"max_tokens":2000,"n":3,"prompt":"count","sim":{%s}}`},
	"completions whole":        {"/v1/completions", `{"model":"tiny","max_tokens":2000,"prompt":["count","more"],"sim":{%s}}`},
	"completions whole n=3":    {"/v1/completions", `{"model":"tiny","max_tokens":2000,"n":3,"prompt":"count","sim":{%s}}`},
	"messages streamed":        {"/v1/messages", `{"model":"tiny","stream":true,"max_tokens":2000,"messages":[{"role":"user","content":"count"}],"sim":{%s}}`},
	"messages whole":           {"/v1/messages", `{"model":"tiny","max_tokens":2000,"messages":[{"role":"user","content":"count"}],"sim":{%s}}`},
	"responses streamed":       {"/v1/responses", `{"model":"tiny","stream":true,"input":"count","sim":{%s}}`},
	"responses whole":          {"/v1/responses", `{"model":"tiny","input":"count","sim":{%s}}`},
}

// cell is one form with one habit, and a key of its own.
type cell struct {
	name, id, secret string
	path, body       string
	taught, leaves   bool
	edges            []*stack.Stack
}

// cells are all forms, taught that answers are short or not, and read to their
// end or left.
func cells() (all []*cell) {
	for form, f := range forms {
		for _, taught := range []bool{false, true} {
			for _, leaves := range []bool{false, true} {
				c := &cell{name: form, path: f.path, body: f.body, taught: taught, leaves: leaves}
				if taught {
					c.name += " taught"
				}
				if leaves {
					c.name += " left"
				}
				c.id = strings.NewReplacer(" ", "-", "=", "").Replace(c.name)
				c.secret = "sk-test-" + c.id + "-0123456789abcdef"
				all = append(all, c)
			}
		}
	}
	return all
}

// Keys is a key file for [Run].
func Keys() string {
	var b strings.Builder
	b.WriteString(`[{"key":"` + stack.AdminKey + `","id":"root","user":"admin"}`)
	for _, c := range cells() {
		fmt.Fprintf(&b, ",\n{\"key\":%q,\"id\":%q,\"user\":%q,\"quota\":%d}", c.secret, c.id, c.id, Quota)
	}
	return b.String() + "]\n"
}

// Run makes n requests in parallel with each key, by turns at each edge, uses up
// what they have left over, and wants the ledgers' sums to be what the quotas
// allow.
func Run(t *testing.T, n int, edges ...*stack.Stack) {
	t.Helper()
	all := cells()
	each := func(do func(c *cell)) {
		var wg sync.WaitGroup
		places := make(chan struct{}, 4) // so that connections do not run out
		for _, c := range all {
			c.edges = edges
			places <- struct{}{}
			wg.Go(func() { do(c); <-places })
		}
		wg.Wait()
		for _, s := range edges {
			s.Idle(20 * time.Second)
		}
	}
	each(func(c *cell) { c.teach() })
	each(func(c *cell) { c.storm(n) })
	each(func(c *cell) { c.finish() })
	used := spent(t, edges)
	most := int64(0)
	for _, c := range all {
		if used[c.id] > Most || used[c.id] < Quota*9/10 {
			t.Errorf("%s: %d tokens of a quota of %d", c.name, used[c.id], Quota)
		}
		most = max(most, used[c.id])
	}
	t.Logf("%d keys, %d requests at once with each: at most %d tokens of a quota of %d", len(all), n, most, Quota)
}

// teach makes it seem that answers are short.
func (c *cell) teach() {
	if !c.taught {
		return
	}
	for i := range 15 {
		c.post(context.Background(), i, `"tokens":1`)
	}
}

func (c *cell) storm(n int) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if !c.leaves {
				c.post(context.Background(), i, `"tokens":2000`)
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(30+i*37%400)*time.Millisecond)
			defer cancel()
			c.post(ctx, i, `"tokens":2000,"delay_ms":1`)
		})
	}
	wg.Wait()
}

// finish asks one by one for what is left, until it is used up.
func (c *cell) finish() {
	for i := range 40 {
		status, again := c.post(context.Background(), i, `"tokens":2000`)
		if status == http.StatusTooManyRequests && again == "false" {
			return
		}
	}
}

// post sends one request and reads the answer. A cut one is what is looked for.
func (c *cell) post(ctx context.Context, i int, script string) (status int, retry string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s := c.edges[i%len(c.edges)]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+c.path, strings.NewReader(fmt.Sprintf(c.body, script)))
	if err != nil {
		return 0, ""
	}
	req.Header.Set("Authorization", "Bearer "+c.secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.HTTP1.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("X-Should-Retry")
}

// spent sums up by key what the ledgers say, once every record has its name.
func spent(t *testing.T, edges []*stack.Stack) map[string]int64 {
	t.Helper()
	sums := map[string]int64{}
	for _, s := range edges {
		var records map[string]ledger.Record
		stack.Eventually(t, 20*time.Second, "all records to end", func() bool {
			records = s.Records()
			for _, r := range records {
				if r.Open() || r.Reason == ledger.Aborted {
					return false
				}
			}
			return true
		})
		for _, r := range records {
			sums[r.KeyID] += max(0, r.Counts.Prompt) + max(0, r.Counts.Completion)
		}
	}
	return sums
}
