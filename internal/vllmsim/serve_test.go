package vllmsim_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/vllmsim"
)

// serve runs a whole server; its end arrives on the channel.
func serve(t *testing.T, opts vllmsim.Options) (sim *vllmsim.Sim, srv *httptest.Server, stop context.CancelFunc, end <-chan error) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	sim = vllmsim.New(opts)
	done := make(chan error, 1)
	go func() { done <- sim.Serve(ctx, lis) }()
	// Only the client of a test server is of use here.
	srv = httptest.NewUnstartedServer(nil)
	srv.Listener.Close()
	srv.Listener = lis
	srv.URL = "http://" + lis.Addr().String()
	return sim, srv, cancel, done
}

// follow posts a chat and reads its first events.
func follow(t *testing.T, srv *httptest.Server, events int, body string) *live {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+chatPath, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	l := &live{t: t, resp: resp, in: bufio.NewReader(resp.Body)}
	l.events(events)
	return l
}

func result(t *testing.T, end <-chan error) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the server did not stop")
		return nil
	}
}

func TestAStopEndsStreamsAsVLLMDoes(t *testing.T) {
	sim, srv, stop, end := serve(t, vllmsim.Options{})
	l := follow(t, srv, 3, chat(`,"sim":{"pause_after":2}`+running))
	stop()
	rest, err := l.rest()
	if err != nil || !strings.Contains(rest, `"finish_reason":"abort"`) || !strings.HasSuffix(rest, "data: [DONE]\n\n") {
		t.Errorf("the stream: got %q, %v", rest, err)
	}
	if err := result(t, end); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	if s := sim.Stats(); s.Running != 0 || s.Finished != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestAStopWithADrainLetsStreamsFinish(t *testing.T) {
	sim, srv, stop, end := serve(t, vllmsim.Options{ShutdownTimeout: 10 * time.Second})
	l := follow(t, srv, 3, chat(`,"max_tokens":4,"sim":{"pause_after":2}`+running))
	stop()
	await(t, func() bool {
		r := readReply(t, exchange(t, srv, rawRequest(chatPath, chat(``))))
		return r.status == http.StatusInternalServerError && strings.Contains(r.body(), "cannot schedule new futures after shutdown")
	})
	health, err := http.Get(srv.URL + "/health") //nolint:noctx // a test
	if err != nil || health.StatusCode != http.StatusOK {
		t.Fatalf("health while draining: %v", err)
	}
	health.Body.Close()
	sim.Release()
	if rest, err := l.rest(); err != nil || !strings.Contains(rest, `"finish_reason":"length"`) {
		t.Errorf("the stream: got %q, %v", rest, err)
	}
	if err := result(t, end); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func TestExitIsReportedAndCutsEverything(t *testing.T) {
	_, srv, _, end := serve(t, vllmsim.Options{})
	l := follow(t, srv, 3, chat(`,"sim":{"pause_after":2}`+running))
	if got := send(t, srv, "/sim/exit?code=7", ""); got.status != http.StatusAccepted {
		t.Errorf("exit: got %d", got.status)
	}
	if _, err := l.rest(); err == nil {
		t.Error("the stream ended properly")
	}
	var exit *vllmsim.ExitError
	if err := result(t, end); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("Serve: got %v, want exit 7", err)
	}
}

func TestASlowStartRefusesConnections(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- vllmsim.ListenAndServe(ctx, "127.0.0.1:0", vllmsim.Options{StartDelay: time.Hour})
	}()
	cancel()
	if err := result(t, done); err != nil {
		t.Errorf("stopped while starting: got %v, want nil", err)
	}
	sim, srv := start(t, vllmsim.Options{})
	notReady := true
	if err := sim.Script(vllmsim.Control{NotReady: &notReady}); err != nil {
		t.Fatal(err)
	}
	if resp, err := srv.Client().Get(srv.URL + "/health"); err == nil {
		resp.Body.Close()
		t.Errorf("not ready: got %d, want no answer", resp.StatusCode)
	}
}

func TestTheControlRoutesAnswer(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{APIKey: "sk-engine"})
	l := open(t, srv, "/v1/completions", "nokey", `{"prompt":"x"}`)
	if l.resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a key: got %d", l.resp.StatusCode)
	}
	get := func(path string, into any) int {
		resp, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	script := send(t, srv, "/sim/script", `{"defaults":{"pause_after":1}}`)
	if script.status != http.StatusOK {
		t.Fatalf("script: got %d %s", script.status, script.body())
	}
	done := make(chan reply, 1)
	go func() {
		done <- send(t, srv, "/v1/completions", `{"prompt":"x","max_tokens":3}`, "Authorization: Bearer sk-engine", "X-Request-Id: r")
	}()
	await(t, func() bool { got, ok := sim.Truth("r"); return ok && got.Paused })
	var stats vllmsim.Stats
	if get("/sim/stats", &stats); stats.Running != 1 {
		t.Errorf("stats: %+v", stats)
	}
	if r := send(t, srv, "/sim/release?request_id=r", ""); !strings.Contains(r.body(), `"released":1`) {
		t.Errorf("release: got %s", r.body())
	}
	if r := <-done; r.status != http.StatusOK {
		t.Errorf("answer: got %d", r.status)
	}
	var truth vllmsim.Truth
	if status := get("/sim/truth?request_id=r&wait_ms=5000", &truth); status != http.StatusOK || truth.EndedAt.IsZero() || truth.Completion() != 3 {
		t.Errorf("truth: %d %+v", status, truth)
	}
	var all struct{ Requests []vllmsim.Truth }
	if get("/sim/truth", &all); len(all.Requests) != 1 {
		t.Errorf("truths: got %d, want 1", len(all.Requests))
	}
	for path, body := range map[string]string{"/sim/script": `{"crash":"what"}`, "/sim/exit?code=300": "", "/sim/what": ""} {
		if r := send(t, srv, path, body); r.status < 400 {
			t.Errorf("%s: got %d", path, r.status)
		}
	}
}

func TestAFullBatchLetsOthersWaitWithOpenHeaders(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{MaxNumSeqs: 2, MaxQueued: 3})
	a := open(t, srv, chatPath, "a", chat(`,"n":2,"max_tokens":2,"sim":{"pause_after":0}`+running))
	a.events(2)
	b := open(t, srv, chatPath, "b", chat(`,"max_tokens":2`+running)) // its headers are there
	await(t, func() bool { return sim.Stats().Waiting == 1 })
	full := send(t, srv, chatPath, chat(``))
	want := readReply(t, recorded(t, "lora/err_queue_full.resp"))
	if full.status != want.status {
		t.Fatalf("third: got %d, want %d", full.status, want.status)
	}
	if diff := cmp.Diff(want.body(), full.body()); diff != "" {
		t.Errorf("third (-want +got):\n%s", diff)
	}
	sim.Release()
	for _, l := range []*live{a, b} {
		if rest, err := l.rest(); err != nil || !strings.HasSuffix(rest, "[DONE]\n\n") {
			t.Errorf("got %q, %v", rest, err)
		}
	}
	l := open(t, srv, chatPath, "c", chat(`,"n":2,"sim":{"pause_after":0}`+running))
	l.events(2)
	d := open(t, srv, chatPath, "d", chat(running))
	await(t, func() bool { return sim.Stats().Waiting == 1 })
	d.stop()
	if got := ended(t, sim, "d"); !got.Aborted || got.Completion() != 0 {
		t.Errorf("left while waiting: %+v", got)
	}
}
