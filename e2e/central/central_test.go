// Package central_test proves through real Envoys, gateways and a real PostgreSQL
// what one ledger and one set of keys for several gateways promise: nothing is
// lost or counted twice, no request waits for PostgreSQL, and a change of a key
// holds everywhere.
package central_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/pgtest"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// usage is what a gateway reports of each key, from the central ledger.
func usage(t *testing.T, s *stack.Stack) (byKey map[string]int64, requests int64) {
	t.Helper()
	a := s.Admin(http.MethodGet, "/admin/usage", "")
	if a.StatusCode != http.StatusOK {
		return nil, -1
	}
	if a.Header.Get("X-Tollgate-Behind-Seconds") == "" {
		t.Error("the report does not say how far it is behind")
	}
	var groups []struct {
		Key      string `json:"key"`
		Requests int64  `json:"requests"`
		Tokens   int64  `json:"total_tokens"`
	}
	if err := json.Unmarshal(a.Bytes, &groups); err != nil {
		t.Fatal(err)
	}
	byKey = map[string]int64{}
	for _, g := range groups {
		byKey[g.Key] = g.Tokens
		requests += g.Requests
	}
	return byKey, requests
}

// chat sends one request and fails the test when it does not pass.
func chat(t *testing.T, s *stack.Stack, key string) {
	t.Helper()
	a := s.Do(s.HTTP1, http.MethodPost, "/v1/chat/completions", stack.Chat(true, 5, ""), "Authorization", "Bearer "+key)
	if a.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", a.StatusCode, a.Bytes)
	}
}

// gateways starts n gateways before one simulated engine. Only the first has a
// key file.
func gateways(t *testing.T, n int, config string, o stack.Options) []*stack.Stack {
	t.Helper()
	o.Config = config
	o.Sim.MaxTruths = 100_000
	all := []*stack.Stack{stack.Start(t, o)}
	o.Engine, o.Sim = all[0].Cfg.EngineAddresses()[0], vllmsim.Options{}
	for range n - 1 {
		all = append(all, stack.Start(t, o))
	}
	return all
}

func TestOneLedgerAndOneSetOfKeys(t *testing.T) {
	pg := pgtest.Start(t)
	both := gateways(t, 2, "central: {postgres_file: "+pg.DatabaseFile()+", keys: true}\n", stack.Options{})
	a, b := both[0], both[1]
	for i := range 20 {
		chat(t, both[i%2], stack.Key)
	}
	want := func(requests int64) {
		t.Helper()
		stack.Eventually(t, 30*time.Second, fmt.Sprint(requests, " requests at both gateways"), func() bool {
			_, atA := usage(t, a)
			_, atB := usage(t, b)
			return atA == requests && atB == requests
		})
	}
	want(20)
	newKey := makeKey(t, a, "bob")
	began := time.Now()
	stack.Eventually(t, 10*time.Second, "a new key on the other gateway", func() bool { return opens(b, newKey) })
	t.Logf("a key made on one gateway was good on the other after %v", time.Since(began))
	cut(t, a, b, newKey)

	pg.Kill()
	for i := range 10 {
		chat(t, both[i%2], stack.Key)
	}
	if r := a.Admin(http.MethodPost, "/admin/keys", `{"user":"eve"}`); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a new key without PostgreSQL: %d %s", r.StatusCode, r.Bytes)
	}
	if r := a.Admin(http.MethodGet, "/admin/usage", ""); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a report without PostgreSQL: %d %s", r.StatusCode, r.Bytes)
	}
	b.Tollgate.Signal(syscall.SIGTERM)
	b.Tollgate.Wait(20 * time.Second)
	b.Tollgate.Start()
	b.Ready()
	chat(t, b, stack.Key)
	pg.Start()
	tokens, _ := truth(a)
	stack.Eventually(t, 60*time.Second, "all that happened meanwhile", func() bool {
		byKey, _ := usage(t, a)
		return byKey["ann"] == tokens["ann"]
	})
	code, out, errs := a.Command("ledger", "central", "verify")
	if code != 0 {
		t.Errorf("ledger central verify: %d %s %s", code, out, errs)
	}
}

// truth is what the engine counted of whole answers, which are all of ann's.
func truth(s *stack.Stack) (tokens map[string]int64, requests int64) {
	tokens = map[string]int64{}
	for _, r := range s.Sim.Truths() {
		if r.Group != "cut" {
			tokens["ann"] += int64(r.PromptTokens + r.Completion())
			requests++
		}
	}
	return tokens, requests
}

func makeKey(t *testing.T, s *stack.Stack, user string) string {
	t.Helper()
	r := s.Admin(http.MethodPost, "/admin/keys", `{"user":"`+user+`","id":"`+user+`"}`)
	var created struct{ ID, Key, Secret string }
	if err := json.Unmarshal(r.Bytes, &created); err != nil || r.StatusCode != http.StatusCreated {
		t.Fatalf("new key: %d %s", r.StatusCode, r.Bytes)
	}
	return created.Key + created.Secret
}

// opens reports whether a key may ask for the models.
func opens(s *stack.Stack, key string) bool {
	return s.Do(s.HTTP1, http.MethodGet, "/v1/models", "", "Authorization", "Bearer "+key).StatusCode == http.StatusOK
}

// cut disables a key on one gateway while it streams on the other.
func cut(t *testing.T, here, there *stack.Stack, key string) {
	t.Helper()
	answer, stop := there.Open(there.HTTP1, key, stack.Chat(true, 100_000, `"delay_ms":20,"group":"cut"`))
	defer stop()
	ended := make(chan time.Time, 1)
	started := make(chan struct{})
	go func() {
		var once sync.Once
		buf := make([]byte, 1024)
		for {
			n, err := answer.Body.Read(buf)
			if n > 0 {
				once.Do(func() { close(started) })
			}
			if err != nil {
				if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "INTERNAL") {
					t.Logf("the stream ended with %v", err)
				}
				ended <- time.Now()
				return
			}
		}
	}()
	<-started
	began := time.Now()
	if r := here.Admin(http.MethodPatch, "/admin/keys/bob", `{"enabled":false}`); r.StatusCode != http.StatusOK {
		t.Fatalf("disable: %d %s", r.StatusCode, r.Bytes)
	}
	select {
	case at := <-ended:
		t.Logf("a key disabled on one gateway: its stream on the other was cut after %v", at.Sub(began))
	case <-time.After(10 * time.Second):
		t.Error("the stream of a disabled key goes on")
	}
	stack.Eventually(t, 10*time.Second, "the refusal of the key everywhere", func() bool { return !opens(here, key) && !opens(there, key) })
}

// TestAQuotaOverThreeGateways spends a quota at three gateways at once. With
// Redis it ends where it says, by the central ledger. Without, each gateway counts
// for itself from where it first saw the key: at most three times the quota.
func TestAQuotaOverThreeGateways(t *testing.T) {
	const quota = 6000
	t.Run("with Redis", func(t *testing.T) {
		store := fmt.Sprintf("store: {kind: redis, redis: {addresses: [%q], timeout: 2s}}\n", stack.StartRedis(t).Addr)
		used := spend(t, store, quota)
		t.Logf("of a quota of %d three gateways used %d", quota, used)
		if used > quota*102/100 || used < quota*8/10 {
			t.Errorf("used %d of %d", used, quota)
		}
	})
	t.Run("without", func(t *testing.T) {
		used := spend(t, "", quota)
		t.Logf("of a quota of %d three gateways without Redis used %d", quota, used)
		if used > 3*quota*102/100 || used < quota*8/10 {
			t.Errorf("used %d of three times %d", used, quota)
		}
	})
}

// spend lets twelve clients spend a quota at three gateways until each of them is
// refused, and returns what the central ledger says.
func spend(t *testing.T, store string, quota int64) (used int64) {
	t.Helper()
	pg := pgtest.Start(t)
	key := "sk-test-quota-0123456789abcdef"
	all := gateways(t, 3, "central: {postgres_file: "+pg.DatabaseFile()+"}\n"+store, stack.Options{
		Keys: fmt.Sprintf(`[{"key":%q,"id":"root","user":"admin"},{"key":%q,"id":"spender","user":"spender","quota":%d}]`, stack.AdminKey, key, quota),
	})
	var wg sync.WaitGroup
	for c := range 12 {
		wg.Go(func() {
			s := all[c%3]
			for range 500 {
				a := s.Do(s.HTTP1, http.MethodPost, "/v1/chat/completions", stack.Chat(true, 40, ""), "Authorization", "Bearer "+key)
				if a.StatusCode != http.StatusOK {
					return
				}
			}
			t.Error("a client was never refused")
		})
	}
	wg.Wait()
	for _, s := range all {
		for _, r := range s.Records() {
			if r.KeyID == "spender" {
				used += r.Counts.Prompt + r.Counts.Completion
			}
		}
	}
	stack.Eventually(t, 30*time.Second, "all of it in the central ledger", func() bool {
		byKey, _ := usage(t, all[2])
		return byKey["spender"] == used
	})
	return used
}
