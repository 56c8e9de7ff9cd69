package limits_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// leaving is the moment at which a client of the storm goes away.
type leaving int

const (
	stays leaving = iota
	beforeHeaders
	midBody
	midStream
	afterDone
	halfClose
	leavings
)

func (l leaving) String() string {
	return [...]string{"stays", "before headers", "mid-body", "mid-stream", "after [DONE]", "half-close"}[l]
}

// storm is what the clients of one storm share.
type storm struct {
	s       *stack.Stack
	keys    int
	left    atomic.Int64 // requests to be made
	refused atomic.Int64 // 429
	shed    atomic.Int64 // 503: the machine is too slow for so many at once
	done    [leavings]atomic.Int64
	strange atomic.Int64 // answers that nobody expects

	mu        sync.Mutex
	delivered map[string]int64 // by request id; guarded by mu
	examples  []string         // of strange; guarded by mu
}

const (
	stormGlobal, stormPerKey = 50, 5
	stormTokens              = 20
)

func TestTheStorm(t *testing.T) {
	const clients = 500
	n := scale(1500, 10000)
	st := &storm{keys: 40, delivered: map[string]int64{}}
	var ids []string
	for i := range st.keys {
		ids = append(ids, "k"+strconv.Itoa(i), "")
	}
	st.s = stack.Start(t, stack.Options{
		Config: fmt.Sprintf("rate_limit: {concurrent: %d, concurrent_per_key: %d, tokens_per_minute: 100000000}", stormGlobal, stormPerKey),
		Keys:   keys(ids...), Sim: vllmsim.Options{Delay: 4 * time.Millisecond, MaxTruths: 3 * n},
	})
	st.left.Store(int64(n))
	began := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { st.client(i) })
	}
	wg.Wait()
	took := time.Since(began)
	ended := time.Now()
	stack.Eventually(t, 5*time.Second, "the engine to be idle", func() bool { return st.s.Sim.Stats().Running == 0 })
	stack.Eventually(t, time.Second, "all leases to be back one second after the last stream", func() bool {
		return st.s.Metric("tollgate_leases_live") == 0 && st.s.Metric("tollgate_tokens_reserved") == 0
	})
	back := time.Since(ended)
	st.explain(t)
	if st.strange.Load() > 0 {
		t.Errorf("%d strange answers: %v", st.strange.Load(), st.examples)
	}
	most, mostKey := st.overlap()
	if most > stormGlobal || mostKey > stormPerKey {
		t.Errorf("at the engine at once: %d of %d, of one key %d of %d", most, stormGlobal, mostKey, stormPerKey)
	}
	if most < stormGlobal/2 {
		t.Errorf("only %d at once: this was no storm", most)
	}
	st.compare(t)
	if code, out, errs := st.s.Command("ledger", "verify"); code != 0 {
		t.Errorf("ledger verify: exit %d %s %s", code, out, errs)
	}
	if got := st.s.Metric("tollgate_leases_expired_total"); got != 0 && st.shed.Load() == 0 {
		t.Errorf("%v slots came back by expiry only, after 5 s", got)
	}
	if got := st.s.Metric("tollgate_unmetered_bytes_total"); got != 0 {
		t.Errorf("unmetered bytes: %v", got)
	}
	t.Logf("%d requests of %d clients in %v, %d refusals (429); at once %d of %d, of one key %d of %d; leases back after %v",
		n, clients, took.Round(time.Millisecond), st.refused.Load(), most, stormGlobal, mostKey, stormPerKey, back.Round(time.Millisecond))
	for l := range leavings {
		t.Logf("  %-15s %d", l, st.done[l].Load())
	}
	t.Logf("  witnesses disagreed: %v", st.s.Metric("tollgate_witness_disagreements_total"))
}

// client makes requests until all are made.
func (st *storm) client(i int) {
	rng := rand.New(rand.NewPCG(uint64(i), 7))
	// Not one connection for all of HTTP/2: its resets would end the others.
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	t := &http.Transport{DisableCompression: true}
	if i%2 == 1 {
		t.Protocols = h2
	}
	defer t.CloseIdleConnections()
	c := &http.Client{Transport: t}
	for st.left.Add(-1) >= 0 {
		how := stays
		if rng.IntN(3) == 0 {
			how = 1 + leaving(rng.IntN(int(leavings)-1))
		}
		if how == halfClose && i%2 == 1 {
			how = midStream // a half-close of HTTP/2 is a request's normal end
		}
		for !st.once(c, rng, i, how) {
			st.refused.Add(1)
			<-time.After(time.Duration(150+rng.IntN(350)) * time.Millisecond)
		}
		st.done[how].Add(1)
	}
}

// once makes one request; false when it was refused.
func (st *storm) once(c *http.Client, rng *rand.Rand, i int, how leaving) bool {
	key := "k" + strconv.Itoa(i%st.keys)
	stream := how != stays || rng.IntN(2) == 0
	body := stack.Chat(stream, stormTokens, `"group":"`+key+`"`)
	switch how {
	case halfClose:
		return st.halfClose(key, body)
	case midBody:
		return st.midBody(c, rng, key, body)
	case stays, beforeHeaders, midStream, afterDone, leavings:
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if how == beforeHeaders {
		stop := time.AfterFunc(time.Duration(rng.IntN(8000))*time.Microsecond, cancel)
		defer stop.Stop()
	}
	resp, err := st.send(ctx, c, key, strings.NewReader(body), int64(len(body)))
	if err != nil {
		if how != beforeHeaders {
			st.surprise("%v: %v", how, err)
		}
		return true
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusTooManyRequests {
		_, _ = io.Copy(io.Discard, resp.Body)
		return false
	}
	if resp.StatusCode == http.StatusServiceUnavailable {
		_, _ = io.Copy(io.Discard, resp.Body)
		st.shed.Add(1)
		return false
	}
	if resp.StatusCode != http.StatusOK {
		st.surprise("%v: status %d", how, resp.StatusCode)
		return true
	}
	if !stream {
		b, err := io.ReadAll(resp.Body)
		a := stack.Answer{Bytes: b}
		usage, _ := a.JSON()["usage"].(map[string]any)
		if n, _ := usage["completion_tokens"].(float64); err != nil || n != stormTokens {
			st.surprise("not streamed: %v %.200s", err, b)
		}
		st.saw(resp, stormTokens)
		return true
	}
	st.read(resp, how, rng.IntN(stormTokens))
	return true
}

func (st *storm) send(ctx context.Context, c *http.Client, key string, body io.Reader, n int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, st.s.URL+stack.ChatPath, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = n
	req.Header.Set("Authorization", "Bearer "+secret(key))
	req.Header.Set("Content-Type", "application/json")
	return c.Do(req)
}

// read reads a stream until its client leaves: after k chunks, at [DONE], or
// at its end.
func (st *storm) read(resp *http.Response, how leaving, k int) {
	chunks := int64(0)
	done := false
	in := bufio.NewReader(resp.Body)
	var err error
	for err == nil {
		var line string
		line, err = in.ReadString('\n')
		if strings.Contains(line, `"content":"`) && !strings.Contains(line, `"role":`) {
			chunks++
		}
		done = done || strings.HasPrefix(line, "data: [DONE]")
		if how == midStream && chunks > int64(k) || how == afterDone && done {
			break
		}
	}
	st.saw(resp, chunks)
	if how == stays && (!done || chunks != stormTokens || err != io.EOF) {
		st.surprise("a stream of %d chunks, [DONE] %v: %v", chunks, done, err)
	}
}

func (st *storm) saw(resp *http.Response, tokens int64) {
	st.mu.Lock()
	st.delivered[resp.Header.Get("X-Request-Id")] = tokens
	st.mu.Unlock()
}

func (st *storm) surprise(format string, args ...any) {
	st.strange.Add(1)
	st.mu.Lock()
	if len(st.examples) < 5 {
		st.examples = append(st.examples, fmt.Sprintf(format, args...))
	}
	st.mu.Unlock()
}

// midBody sends a part of its body and leaves.
func (st *storm) midBody(c *http.Client, rng *rand.Rand, key, body string) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, body[:len(body)/2])
		<-time.After(time.Duration(rng.IntN(20)) * time.Millisecond)
		cancel()
		_ = w.Close()
	}()
	resp, err := st.send(ctx, c, key, r, int64(len(body)))
	if err != nil {
		return true
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		st.surprise("half a body: status %d", resp.StatusCode)
	}
	return true
}

// halfClose ends its side after the request, as some HTTP/1 clients do, and
// reads on. Envoy takes it for a client that left, or answers: both are right.
func (st *storm) halfClose(key, body string) bool {
	conn, err := net.Dial("tcp", st.s.Addr())
	if err != nil {
		st.surprise("%v", err)
		return true
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		stack.ChatPath, secret(key), len(body), body)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return true
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return false
	}
	st.read(resp, halfClose, 0)
	return true
}
