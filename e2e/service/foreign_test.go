package service_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/envoy"
	"tollgate/internal/vllmsim"
)

// TestFiltersMayHaveAnyName: control planes choose the names of their filters. Envoy
// writes what a check says under a namespace that no name changes, and the ticket is
// found there.
func TestFiltersMayHaveAnyName(t *testing.T) {
	r := start(t, "", stack.Options{NoStart: true})
	r.Tollgate.Start()
	rename := strings.NewReplacer(
		"- name: envoy.filters.http.ext_authz\n", "- name: envoy.filters.http.ext_authz/securitypolicy/default/tollgate\n",
		"envoy.filters.http.ext_proc", "tollgate.ext_proc",
	)
	renamed := ""
	r.EnvoyWith(r.remote, func(bootstrap string) string {
		renamed = rename.Replace(bootstrap)
		return renamed
	}).Start()
	r.Ready()
	for _, name := range []string{"envoy.filters.http.ext_authz/securitypolicy/default/tollgate", "tollgate.ext_proc"} {
		if !regexp.MustCompile(`(?m)^ *- name: ` + regexp.QuoteMeta(name) + "$").MatchString(renamed) {
			t.Fatalf("no filter is called %s", name)
		}
	}
	if !strings.Contains(renamed, `untyped: ["envoy.filters.http.ext_authz"]`) {
		t.Fatal("ext_proc is sent another namespace")
	}
	a := r.Post(stack.ChatPath, chat)
	if a.StatusCode != http.StatusOK || a.Err != nil {
		t.Fatalf("a stream: %d %s", a.StatusCode, a.Bytes)
	}
	if rec, truth := r.Settled(a.RequestID()), r.Truth(a.RequestID()); rec.Counts.Completion != int64(truth.Completion()) {
		t.Errorf("ledger %+v, engine %+v", rec, truth)
	}
	r.Idle(10 * time.Second)
}

// TestTwoTollgatesOverTheNetwork behind one Envoy, on one Redis. One dies: only its
// streams do, too.
func TestTwoTollgatesOverTheNetwork(t *testing.T) {
	redis := stack.StartRedis(t)
	store := fmt.Sprintf("store: {kind: redis, redis: {addresses: [%q], timeout: 500ms}}\n", redis.Addr)
	first := start(t, store, stack.Options{NoStart: true, Sim: vllmsim.Options{Delay: 5 * time.Millisecond}})
	first.Tollgate.Start()
	second := first.beside(store)
	second.Tollgate.Start()
	both := *first.remote
	both.Addresses = append([]string{second.listen}, both.Addresses...)
	first.EnvoyWith(&both, nil).Start()
	first.Ready()
	second.up()
	l := first.startLoad()
	for _, r := range []*rig{first, second} {
		stack.Eventually(t, 30*time.Second, "both to meter requests", func() bool { return len(r.Records()) > 1 })
	}
	l.stop()
	second.Tollgate.Kill()
	ok := 0
	for range 20 {
		if a := first.Post(stack.ChatPath, chat); a.StatusCode == http.StatusOK && a.Err == nil {
			ok++
		}
	}
	if ok < 15 {
		t.Errorf("%d of 20 answers while one of two is dead", ok)
	}
	l = first.startLoad()
	l.more(50)
	l.stop()
	first.Idle(30 * time.Second)
}

// beside is another tollgate with the same certificates, keys and engine, and no Envoy.
func (r *rig) beside(store string) *rig {
	r.t.Helper()
	n := *r
	n.listen = fmt.Sprintf("127.0.0.1:%d", stack.FreePort(r.t))
	n.Stack = stack.Start(r.t, stack.Options{
		NoStart: true, Engine: r.Cfg.EngineAddresses()[0], KeysFile: r.Cfg.Auth.APIKeysFile,
		Config: store + n.section(), Remote: &envoy.Remote{},
	})
	return &n
}
