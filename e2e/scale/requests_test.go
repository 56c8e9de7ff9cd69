//go:build scale

package scale_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// everything sends all kinds of requests through the edge, each on its own, then 40
// streams at once, and compares all rows with the engine. It returns their number.
func (e *edge) everything() int {
	e.t.Helper()
	slow := make(chan *stack.Answer, 1)
	// Longer than the 10 s that some control planes give a gRPC call.
	go func() { slow <- e.chat(true, 125, `"delay_ms":100`) }()
	e.answers()
	e.refusals()
	e.cuts()
	e.bodies()
	e.headers()
	e.parallel(40)
	if a := <-slow; a.Err != nil || !bytes.HasSuffix(a.Bytes, []byte("data: [DONE]\n\n")) {
		e.t.Errorf("%s: a stream of 12 s: %v, %d bytes", e.name, a.Err, len(a.Bytes))
	}
	return e.agree()
}

func (e *edge) chat(stream bool, tokens int, sim string) *stack.Answer {
	return e.Post(stack.ChatPath, stack.Chat(stream, tokens, sim))
}

// want checks status and a part of the body.
func (e *edge) want(what string, a *stack.Answer, status int, part string) {
	e.t.Helper()
	if a.StatusCode != status || !bytes.Contains(a.Bytes, []byte(part)) || a.Err != nil {
		e.t.Errorf("%s: %s: %d %v, want %d with %q:\n%.400s", e.name, what, a.StatusCode, a.Err, status, part, a.Bytes)
	}
}

// answers are the shapes that a client may ask for.
func (e *edge) answers() {
	e.t.Helper()
	const messages = `"model":"tiny","messages":[{"role":"user","content":"hi"}]`
	e.want("a stream", e.chat(true, 20, ""), 200, "data: [DONE]")
	if a := e.chat(true, 20, ""); bytes.Contains(a.Bytes, []byte(`"usage":{`)) {
		e.t.Errorf("%s: a stream that did not ask for usage has some", e.name)
	}
	e.want("a stream of two", e.Post(stack.ChatPath, `{`+messages+`,"stream":true,"n":2,"max_tokens":10}`), 200, `"index":1`)
	e.want("a stream with usage", e.Post(stack.ChatPath, `{`+messages+`,"stream":true,"max_tokens":10,"stream_options":{"include_usage":true}}`), 200, `"completion_tokens":10`)
	e.want("an answer in one piece", e.chat(false, 7, ""), 200, `"completion_tokens":7`)
	e.want("over HTTP/2", e.Do(e.HTTP2, http.MethodPost, stack.ChatPath, stack.Chat(true, 9, ""), "Authorization", "Bearer "+stack.Key), 200, "data: [DONE]")
	e.want("completions", e.Post("/v1/completions", `{"model":"tiny","prompt":"a b c","max_tokens":6}`), 200, `"completion_tokens":6`)
	e.want("a bare path", e.Post("/completions", `{"model":"tiny","prompt":"a b c","max_tokens":6}`), 200, `"completion_tokens":6`)
	e.want("responses", e.Post("/v1/responses", `{"model":"tiny","input":"hi","max_output_tokens":6}`), 200, `"output_tokens":6`)
	for _, stream := range []bool{false, true} {
		a := e.Post("/v1/messages", fmt.Sprintf(`{%s,"stream":%t,"max_tokens":8}`, messages, stream), "Authorization", "", "x-api-key", stack.Key)
		e.want("Anthropic", a, 200, `"output_tokens":8`)
	}
	e.want("the list of models", e.Do(e.HTTP1, http.MethodGet, "/v1/models", "", "Authorization", "Bearer "+stack.Key), 200, `"id":"tiny"`)
	e.want("health", e.Do(e.HTTP1, http.MethodGet, "/health", ""), 200, "")
	e.want("the key's own page", e.Do(e.HTTP1, http.MethodGet, "/v1/key", "", "Authorization", "Bearer "+stack.Key), 200, `"ann"`)
	e.want("the admin API", e.Admin(http.MethodGet, "/admin/keys", ""), 200, `"ann"`)
}

// refusals never reach an engine, or are the engine's own.
func (e *edge) refusals() {
	e.t.Helper()
	e.want("a stranger", e.Post(stack.ChatPath, stack.Chat(false, 1, ""), "Authorization", "Bearer sk-wrong"), 401, "invalid_api_key")
	e.want("nobody", e.Post(stack.ChatPath, stack.Chat(false, 1, ""), "Authorization", ""), 401, "invalid_api_key")
	e.want("a model that is not there", e.Post(stack.ChatPath, `{"model":"nope","messages":[]}`), 404, "nope")
	e.want("half a body", e.Post(stack.ChatPath, `{`), 400, "invalid_request_error")
	e.want("the admin API with a user's key", e.Do(e.HTTP1, http.MethodGet, "/admin/keys", "", "Authorization", "Bearer "+stack.Key), 403, "")
	e.want("models for nobody", e.Do(e.HTTP1, http.MethodGet, "/v1/models", ""), 401, "")
	e.want("the engine's own error", e.chat(false, 5, `"error_status":500`), 500, "")
	for _, path := range []string{"/v1/load_lora_adapter", "/sim/truth", "/v1/chat/completions/../../sim/truth", "/collective_rpc"} {
		if a := e.Do(e.HTTP1, http.MethodPost, path, `{}`, "Authorization", "Bearer "+stack.Key); a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusMethodNotAllowed {
			e.t.Errorf("%s: POST %s is answered with %d", e.name, path, a.StatusCode)
		}
	}
	if a := e.Do(e.HTTP1, http.MethodGet, "/v1/models", "", "Authorization", "Bearer "+stack.Key, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version", "13"); a.StatusCode == http.StatusSwitchingProtocols {
		e.t.Errorf("%s: a WebSocket was opened", e.name)
	}
}

// cuts are streams that do not come to their end.
func (e *edge) cuts() {
	e.t.Helper()
	for _, how := range []string{"fin", "rst"} {
		// The engine breaks it where nothing is on its way: a reset overtakes what is.
		a, _ := e.Open(e.HTTP1, stack.Key, stack.Chat(true, 50, `"pause_after":5,"cut_after":5,"cut":"`+how+`"`))
		readChunks(e.t, a, 5)
		stack.Eventually(e.t, 10*time.Second, "a stream to pause", func() bool { return e.release() > 0 })
		if _, err := io.ReadAll(a.Body); err == nil {
			e.t.Errorf("%s: the client did not see that the engine broke the stream by %s", e.name, how)
		}
	}
	if a := e.chat(false, 5, `"cut_after":0,"cut":"rst"`); a.StatusCode < 500 {
		e.t.Errorf("%s: an engine that breaks off before its answer: %d", e.name, a.StatusCode)
	}
	for range 5 {
		// Left where nothing is on its way, so that the engine's account is exact.
		a, leave := e.Open(e.HTTP1, stack.Key, stack.Chat(true, 400, `"pause_after":10`))
		readChunks(e.t, a, 10)
		leave()
	}
}

// readChunks reads n chunks of content.
func readChunks(t *testing.T, a *stack.Answer, n int) {
	t.Helper()
	for in := bufio.NewScanner(a.Body); n > 0; {
		if !in.Scan() {
			t.Errorf("the stream has ended, %d chunks early: %v", n, in.Err())
			return
		}
		if strings.Contains(in.Text(), `"content":"`) && !strings.Contains(in.Text(), `"content":""`) {
			n--
		}
	}
}

// bodies are large, or come slowly. No engine sees a part of one.
func (e *edge) bodies() {
	e.t.Helper()
	const head = `{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"`
	e.want("a body of 2 MB", e.Post(stack.ChatPath, head+strings.Repeat("x ", 1<<20)[:2_000_000]+`"}],"sim":{}}`), 400, "context")
	e.want("a body of 2 MB that fits", e.Post(stack.ChatPath, head+`hi"}],"user":"`+strings.Repeat("y", 2_000_000)+`"}`), 200, `"completion_tokens":1`)
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, e.URL+stack.ChatPath, r)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	before := len(e.truths())
	answered := make(chan int, 1)
	go func() {
		resp, err := e.HTTP1.Do(req)
		if err != nil {
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	_, _ = io.WriteString(w, head)
	stack.Eventually(e.t, 10*time.Second, "the request to be live", func() bool { return e.Metric("tollgate_leases_live") >= 1 })
	_, _ = io.WriteString(w, `and then nonsense`)
	_ = w.Close()
	if code := <-answered; code != 400 {
		e.t.Errorf("%s: a body that breaks off is answered with %d", e.name, code)
	}
	if n := len(e.truths()) - before; n != 0 {
		e.t.Errorf("%s: the engine has seen %d requests that nobody had checked", e.name, n)
	}
}

// headers that would speak for somebody else do not reach the engine.
func (e *edge) headers() {
	e.t.Helper()
	forged := []string{"x-vllm-priority", "x-data-parallel-rank", "x-session-id", "x-forwarded-for", "x-forwarded-host", "forwarded", "cookie", "x-real-ip", "x-envoy-upstream-rq-timeout-ms", "x-envoy-retry-on"}
	var given []string
	for _, name := range forged {
		given = append(given, name, "forged-1")
	}
	body := strings.Replace(stack.Chat(false, 1, ""), `"sim":{}`, `"user":"forger"`, 1)
	e.want("forged headers", e.Post(stack.ChatPath, body, given...), 200, "")
	for _, truth := range e.truths() {
		for _, name := range append(forged, "authorization", "x-api-key") {
			if v, ok := truth.Headers[name]; ok {
				e.t.Errorf("%s: the engine got %s: %v", e.name, name, v)
			}
		}
	}
}

// parallel opens n streams at the same time.
func (e *edge) parallel(n int) {
	e.t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if a := e.chat(true, 30, ""); a.Err != nil || !bytes.Contains(a.Bytes, []byte("data: [DONE]")) {
				e.t.Errorf("%s: one of %d streams: %d %v", e.name, n, a.StatusCode, a.Err)
			}
		})
	}
	wg.Wait()
}

// alive holds n streams open at the same time, sees that all of them are leased, and lets
// them end.
func (e *edge) alive(n int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 3*time.Minute)
	defer cancel()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed = map[string]int{}
		gate   = make(chan struct{}, 64) // how many are being opened
	)
	for range n {
		wg.Go(func() {
			gate <- struct{}{}
			why := e.hold(ctx, func() { <-gate })
			mu.Lock()
			failed[why]++
			mu.Unlock()
		})
	}
	stack.Eventually(e.t, 2*time.Minute, fmt.Sprintf("%d streams to be live", n), func() bool {
		mu.Lock()
		ended := 0
		for _, k := range failed {
			ended += k
		}
		mu.Unlock()
		return ended > 0 || e.Metric("tollgate_leases_live") >= float64(n)
	})
	live := e.Metric("tollgate_leases_live")
	for running := true; running; {
		e.release()
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
			running = false
		case <-time.After(time.Second): // one that had not paused yet
		}
	}
	if failed[""] != n || live < float64(n) {
		text, _ := json.Marshal(failed)
		e.t.Errorf("%s: of %d streams %v were live at once; ends: %s", e.name, n, live, text)
	}
	e.t.Logf("%s: %v streams live at once", e.name, live)
}

// hold opens a stream that pauses after its first chunk, calls opened, and reads it to its
// end. It returns what went wrong.
func (e *edge) hold(ctx context.Context, opened func()) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL+stack.ChatPath, strings.NewReader(stack.Chat(true, 3, `"pause_after":1`)))
	if err != nil {
		opened()
		return err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.HTTP1.Do(req)
	opened()
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.HasSuffix(text, []byte("data: [DONE]\n\n")) {
		return fmt.Sprintf("%d %v %.100s", resp.StatusCode, err, text)
	}
	return ""
}
