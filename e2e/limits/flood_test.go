package limits_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestGuessingKeysMeetsTheRateOfTheAddress: guesses are charged on arrival, and
// another address is served meanwhile.
func TestGuessingKeysMeetsTheRateOfTheAddress(t *testing.T) {
	const qps = 20
	n := scale(2000, 100000)
	s := stack.Start(t, stack.Options{Config: fmt.Sprintf("rate_limit: {qps: %d, requests_per_minute: 100000}", qps), Keys: keys("ann", "")})
	guesser := s.From("127.0.0.2")
	var invalid, limited, strange, next atomic.Int64
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var guessers, others sync.WaitGroup
	for range 16 {
		guessers.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+stack.ChatPath, strings.NewReader("{}"))
				req.Header.Set("Authorization", "Bearer sk-guess-"+strconv.FormatInt(i, 10))
				resp, err := guesser.Do(req)
				if err != nil {
					strange.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				switch resp.StatusCode {
				case http.StatusUnauthorized:
					invalid.Add(1)
				case http.StatusTooManyRequests:
					limited.Add(1)
				default:
					strange.Add(1)
				}
			}
		})
	}
	served, slowest := 0, time.Duration(0)
	other := s.From("127.0.0.3")
	others.Go(func() {
		for ctx.Err() == nil {
			at := time.Now()
			if a := s.Do(other, "POST", stack.ChatPath, stack.Chat(false, 1, ""), "Authorization", "Bearer "+secret("ann")); a.StatusCode != http.StatusOK { //nolint:contextcheck // it ends with the test
				t.Errorf("another address got %d %s", a.StatusCode, a.Bytes)
			}
			slowest = max(slowest, time.Since(at))
			served++
			<-time.After(100 * time.Millisecond)
		}
	})
	guessers.Wait()
	took := time.Since(began)
	good := s.Do(guesser, "GET", "/v1/models", "", "Authorization", "Bearer "+secret("ann"))
	for range 4 { // twenty times a second there is one that may pass
		if good.StatusCode != http.StatusOK {
			break
		}
		good = s.Do(guesser, "GET", "/v1/models", "", "Authorization", "Bearer "+secret("ann"))
	}
	cancel()
	others.Wait()
	most := qps + qps*took.Seconds() + 1
	if float64(invalid.Load()) > most || strange.Load() > 0 || limited.Load()+invalid.Load() != int64(n) {
		t.Errorf("%d guesses in %v: %d were looked at (at most %.0f may be), %d refused by rate, %d strange", n, took, invalid.Load(), most, limited.Load(), strange.Load())
	}
	refusedByAddress(t, good)
	if served == 0 {
		t.Error("the other address was not asked for")
	}
	t.Logf("%d guesses in %v: %d looked at, %d refused by rate; another address: %d requests, slowest %v", n, took.Round(time.Millisecond), invalid.Load(), limited.Load(), served, slowest)
}

// refusedByAddress: the refusal names the address and shows no key's limits.
func refusedByAddress(t *testing.T, a *stack.Answer) {
	t.Helper()
	stack.WantProblem(t, a, tooFast)
	if !strings.Contains(string(a.Bytes), "address") {
		t.Errorf("the message does not name the limit: %s", a.Bytes)
	}
	if got := rates(t, a); len(got) != 0 {
		t.Errorf("a refusal by address shows limits of a key: %v", got)
	}
	retryAfter(t, a)
}

// TestDrippingBodies: clients that send a byte now and then hold their slots
// for body_timeout and no longer, and memory for what they have sent: what they
// announced is taken from nobody.
func TestDrippingBodies(t *testing.T) {
	clients := scale(100, 1000)
	s := stack.Start(t, stack.Options{
		Config: "request: {body_timeout: 3s, max_body_mb: 1, max_inflight_body_mb: 8}", Keys: keys("slow", "", "ann", ""),
	})
	before := s.Tollgate.RSS()
	var timeouts atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range clients {
		wg.Go(func() {
			switch status := drip(ctx, s, 200<<10); status {
			case http.StatusRequestTimeout:
				timeouts.Add(1)
			default:
				t.Errorf("a dripping client got %d", status)
			}
		})
	}
	stack.Eventually(t, 10*time.Second, "the bodies to drip", func() bool { return s.Metric("tollgate_leases_live") >= float64(clients) || timeouts.Load() > 0 })
	// Together they have announced 2.5 times what is allowed in memory.
	a := s.Do(s.HTTP1, "POST", stack.ChatPath, `{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"user":"`+strings.Repeat("x", 900<<10)+`"}`, "Authorization", "Bearer "+secret("ann"))
	if a.StatusCode != http.StatusOK {
		t.Errorf("another key's large request: %d %s", a.StatusCode, a.Bytes)
	}
	if held := s.Metric("tollgate_body_bytes_inflight"); held > float64(clients*8<<10) {
		t.Errorf("%v bytes are held for %d bodies of a few bytes", held, clients)
	}
	during := s.Tollgate.RSS()
	wg.Wait()
	s.Idle(2 * time.Second)
	if timeouts.Load() != int64(clients) {
		t.Errorf("%d of %d ended with body_timeout", timeouts.Load(), clients)
	}
	if held := s.Metric("tollgate_body_bytes_inflight"); held != 0 {
		t.Errorf("%v bytes are still held", held)
	}
	if grown := during - before; grown > 64<<20 {
		t.Errorf("tollgate grew by %d MiB", grown>>20)
	}
	if a := ask(s, "ann", stack.Chat(false, 1, "")); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.Bytes)
	}
	t.Logf("%d clients held their slot until body_timeout, memory grew by %d KiB", clients, (during-before)>>10)
}

// drip sends the headers of a body of n bytes and then one byte each 100 ms,
// and returns the status of the answer.
func drip(ctx context.Context, s *stack.Stack, n int) int {
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return -1
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{",
		stack.ChatPath, secret("slow"), n)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if _, err := io.WriteString(conn, " "); err != nil {
					return
				}
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return -1
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
