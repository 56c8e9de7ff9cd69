package vllmsim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"tollgate/internal/vllmsim"
)

// metrics is the text of /metrics.
func metrics(t *testing.T, srv *httptest.Server) string {
	t.Helper()
	resp, err := srv.Client().Get(srv.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// counters reads the two token counters as a reconciler would.
func counters(t *testing.T, srv *httptest.Server) (prompt, generation int64) {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(metrics(t, srv)))
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) int64 {
		f := families[name]
		if f == nil {
			t.Fatalf("no %s in the metrics", name)
		}
		return int64(f.GetMetric()[0].GetCounter().GetValue())
	}
	return read("vllm:prompt_tokens_total"), read("vllm:generation_tokens_total")
}

func TestCountersEqualTheReportedUsage(t *testing.T) {
	for _, c := range []struct {
		name, path, body            string
		prompt, counted, completion int
	}{
		{"chat", chatPath, chat(`,"max_tokens":7`), chatPrompt, chatPrompt, 7},
		{"chat without a bound", chatPath, chat(``), chatPrompt, chatPrompt, 32},
		{"chat stream", chatPath, chat(`,"max_tokens":7` + running), chatPrompt, chatPrompt, 7},
		{"chat n", chatPath, chat(`,"max_tokens":7,"n":3` + running), chatPrompt, 3 * chatPrompt, 21},
		{"completions list", "/v1/completions", `{"prompt":["one two","three"],"max_tokens":4}`, 3, 3, 8},
		{"completions list stream n", "/v1/completions", `{"prompt":["one two","three"],"max_tokens":4,"n":2` + running + `}`, 3, 6, 16},
		{"completions default", "/v1/completions", `{"prompt":"one"}`, 1, 1, 16},
		{"completions ids", "/v1/completions", `{"prompt":[[5,6,7],[8]],"max_tokens":1}`, 4, 4, 2},
		{"echo only", "/v1/completions", `{"prompt":"one two","echo":true,"max_tokens":0}`, 2, 2, 1},
		{"a stop string", "/v1/completions", `{"prompt":"one","max_tokens":9,"stop":["answer com"]}`, 1, 1, 3},
		{"embeddings", "/v1/embeddings", `{"input":["one two","three"]}`, 3, 3, 0},
		{"score", "/v1/score", `{"text_1":"one","text_2":["two","three four"]}`, 5, 5, 0},
		{"rerank", "/v1/rerank", `{"query":"one","documents":["two","three four"]}`, 5, 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			sim, srv := start(t, vllmsim.Options{})
			got := send(t, srv, c.path, c.body)
			if got.status != http.StatusOK {
				t.Fatalf("status %d: %s", got.status, got.body())
			}
			last := got.body()
			if lines := sse(got); len(lines) > 1 {
				last = lines[len(lines)-2]
			}
			usage := usageOf(t, last)
			want := map[string]int{"prompt_tokens": c.prompt, "completion_tokens": c.completion, "total_tokens": c.prompt + c.completion}
			if diff := cmp.Diff(want, usage); diff != "" {
				t.Errorf("usage (-want +got):\n%s", diff)
			}
			if p, g := counters(t, srv); p != int64(c.counted) || g != int64(c.completion) {
				t.Errorf("counters: got %d and %d, want %d and %d", p, g, c.counted, c.completion)
			}
			truth := sim.Truths()[0]
			if truth.PromptTokens != c.prompt || truth.Completion() != c.completion || truth.WrittenTokens() != c.completion || !truth.Finished {
				t.Errorf("truth: %+v", truth)
			}
		})
	}
}

func TestRunningUsageIsCumulativePerChoice(t *testing.T) {
	_, srv := start(t, vllmsim.Options{})
	got := send(t, srv, chatPath, chat(`,"max_tokens":3,"n":2`+running))
	var seen []int
	for _, data := range sse(got)[2:8] {
		seen = append(seen, usageOf(t, data)["completion_tokens"])
	}
	if diff := cmp.Diff([]int{1, 1, 2, 2, 3, 3}, seen); diff != "" {
		t.Errorf("running usage (-want +got):\n%s", diff)
	}
}

func TestTheSameRequestGetsTheSameText(t *testing.T) {
	_, srv := start(t, vllmsim.Options{})
	text := func(content string) string {
		r := send(t, srv, "/v1/completions", fmt.Sprintf(`{"prompt":%q,"max_tokens":64}`, content))
		_, rest, _ := strings.Cut(r.body(), `"text":"`)
		out, _, _ := strings.Cut(rest, `"`)
		return out
	}
	first := text("a question")
	if !strings.HasPrefix(first, "This answer comes from a simulated model") || !strings.HasSuffix(first, ".") {
		t.Errorf("text: got %q", first)
	}
	if again := text("a question"); again != first {
		t.Errorf("again: got %q, want %q", again, first)
	}
	if other := text("another question"); other == first {
		t.Errorf("another question got the same text %q", other)
	}
	if n := vllmsim.CountTokens(first); n != 64 {
		t.Errorf("tokens of the text: got %d, want 64", n)
	}
}

func TestAnAbortedStreamIsAccountedToTheToken(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	l := open(t, srv, chatPath, "a", chat(`,"max_tokens":50,"sim":{"pause_after":5}`+running))
	events := l.events(6) // the role and five tokens
	if got := usageOf(t, strings.TrimPrefix(events[5], "data: "))["completion_tokens"]; got != 5 {
		t.Errorf("last running usage: got %d, want 5", got)
	}
	if got, _ := sim.Truth("a"); got.Paused != true || got.Completion() != 5 {
		t.Errorf("while paused: %+v", got)
	}
	l.stop()
	got := ended(t, sim, "a")
	if !got.Aborted || got.Finished || got.Completion() != 5 || got.WrittenTokens() != 5 || got.PromptTokens != chatPrompt {
		t.Errorf("truth: %+v", got)
	}
	if p, g := counters(t, srv); p != chatPrompt || g != 5 {
		t.Errorf("counters: got %d and %d, want %d and 5", p, g, chatPrompt)
	}
	if s := sim.Stats(); s.Running != 0 || s.MaxRunning != 1 || s.Aborted != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestTheEngineMayRunAheadOfAClientThatLeaves(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	l := open(t, srv, chatPath, "a", chat(`,"max_tokens":50,"n":2,"sim":{"pause_after":4,"run_ahead":7}`+running))
	l.events(2 + 4)
	l.stop()
	got := ended(t, sim, "a")
	if diff := cmp.Diff([]int{9, 9}, got.Generated); diff != "" {
		t.Errorf("generated (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{2, 2}, got.Written); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
}

func TestAStreamAbortedAfterItsRoleHasOneToken(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	l := open(t, srv, chatPath, "a", chat(`,"sim":{"pause_after":0}`+running))
	l.events(1)
	l.stop()
	if got := ended(t, sim, "a"); got.Completion() != 1 || got.WrittenTokens() != 0 || !got.Aborted {
		t.Errorf("truth: %+v", got)
	}
}

func TestAnAnswerThatIsNotStreamedIsGeneratedButNeverReported(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+chatPath, strings.NewReader(chat(`,"max_tokens":9,"sim":{"pause_after":4}`)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Request-Id", "a")
	var done sync.WaitGroup
	done.Go(func() {
		if resp, err := srv.Client().Do(r); err == nil {
			resp.Body.Close()
			t.Error("an answer came")
		}
	})
	await(t, func() bool { got, ok := sim.Truth("a"); return ok && got.Paused })
	cancel()
	done.Wait()
	if got := ended(t, sim, "a"); !got.Aborted || got.Completion() != 4 || got.WrittenTokens() != 0 || got.Status != 0 {
		t.Errorf("truth: %+v", got)
	}
}

// await polls without sleeping long: what it waits for is on its way.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	for range 1_000_000 {
		if ok() {
			return
		}
		yieldProcessor()
	}
	t.Fatal("it never came")
}

func TestARequestLeavesTheCountBeforeItsLastByte(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	for range 200 {
		for _, body := range []string{chat(`,"max_tokens":2` + running), chat(`,"max_tokens":2,"sim":{"group":"g"}`)} {
			resp, err := srv.Client().Post(srv.URL+chatPath, "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
	}
	s := sim.Stats()
	if s.MaxRunning != 1 || s.Running != 0 || s.Requests != 400 || s.Finished != 400 {
		t.Errorf("stats: %+v", s)
	}
	if g := s.Groups["g"]; g.Requests != 200 || g.MaxRunning != 1 || g.Running != 0 {
		t.Errorf("group: %+v", g)
	}
}

func TestTruthShowsWhatReachedTheServer(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{})
	long := strings.Repeat("x", 5000)
	body := chat(`,"user":"u","zeta":` + `"` + long + `","max_tokens":1,"max_tokens":2`)
	send(t, srv, chatPath, body, "X-Request-Id: r1", "Authorization: Bearer sk-secret", "X-Odd: yes")
	got, ok := sim.Truth("r1")
	if !ok {
		t.Fatal("no truth")
	}
	if diff := cmp.Diff([]string{"max_tokens", "messages", "user", "zeta"}, got.Keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if string(got.Fields["max_tokens"]) != "2" || string(got.Fields["zeta"]) != "null" || got.BodyBytes != len(body) {
		t.Errorf("fields: %s, %s of %d bytes", got.Fields["max_tokens"], got.Fields["zeta"], got.BodyBytes)
	}
	if got.Headers["x-odd"][0] != "yes" || got.Headers["authorization"][0] != "(present)" {
		t.Errorf("headers: %v", got.Headers)
	}
	if _, err := sim.WaitEnd(t.Context(), "nobody"); !errors.Is(err, vllmsim.ErrUnknownRequest) {
		t.Errorf("an unknown request: got %v", err)
	}
}

func TestTruthsAreBounded(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{MaxTruths: 10})
	for i := range 50 {
		send(t, srv, chatPath, chat(`,"max_tokens":1`), fmt.Sprintf("X-Request-Id: r%d", i))
	}
	all := sim.Truths()
	if len(all) < 10 || len(all) > 20 {
		t.Errorf("remembered: got %d, want 10 to 20", len(all))
	}
	if _, ok := sim.Truth("r0"); ok {
		t.Error("the first is still there")
	}
	if last := all[len(all)-1]; last.RequestID != "r49" || last.Seq != 50 {
		t.Errorf("last: %+v", last)
	}
}
