package metering_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"tollgate/internal/vllmsim"
)

// simulated compares with the truth of a simulated engine: delivered ≤ ledger
// ≤ generated, and equality where the answer was whole.
func (s *suite) simulated(t *testing.T) {
	if s.reader == nil {
		return
	}
	const msgs = `"messages":[{"role":"user","content":"count for me"}]`
	type sim struct {
		name, route, body string
		exact             bool // ledger equals what was generated
	}
	var cases []sim
	for n := 1; n <= 3; n++ {
		for _, stream := range []bool{false, true} {
			head := fmt.Sprintf(`{"model":"MODEL","n":%d,"temperature":0.5,"max_tokens":12,"stream":%v,`, n, stream)
			cases = append(cases,
				sim{fmt.Sprintf("chat n=%d stream=%v", n, stream), "/v1/chat/completions", head + msgs + `}`, true},
				sim{fmt.Sprintf("text n=%d, three prompts, stream=%v", n, stream), "/v1/completions", head + `"prompt":["one","two and","three"]}`, true},
				sim{fmt.Sprintf("logprobs n=%d stream=%v", n, stream), "/v1/chat/completions", head + `"logprobs":true,"top_logprobs":2,` + msgs + `}`, true},
				sim{fmt.Sprintf("tokens without text n=%d stream=%v", n, stream), "/v1/chat/completions", head + msgs + `,"sim":{"empty_every":2}}`, true},
			)
			if stream {
				cases = append(cases, sim{fmt.Sprintf("cut n=%d", n), "/v1/chat/completions", head + msgs + `,"sim":{"cut_after":7,"delay_ms":5}}`, false})
			}
		}
	}
	for _, stream := range []bool{false, true} {
		cases = append(cases,
			sim{fmt.Sprintf("responses stream=%v", stream), "/v1/responses", fmt.Sprintf(`{"model":"MODEL","stream":%v,"max_output_tokens":9,"input":"hello there"}`, stream), true},
			sim{fmt.Sprintf("messages stream=%v", stream), "/v1/messages", fmt.Sprintf(`{"model":"MODEL","stream":%v,"max_tokens":9,%s}`, stream, msgs), true},
			sim{fmt.Sprintf("messages with a cache hit stream=%v", stream), "/v1/messages", fmt.Sprintf(`{"model":"MODEL","stream":%v,"max_tokens":9,%s,"sim":{"cached_tokens":4}}`, stream, msgs), true},
		)
	}
	for chunk := 1; chunk <= 16; chunk++ {
		cases = append(cases, sim{
			fmt.Sprintf("written in pieces of %d bytes", chunk), "/v1/chat/completions",
			fmt.Sprintf(`{"model":"MODEL","n":2,"temperature":0.5,"max_tokens":5,"stream":true,%s,"sim":{"chunk_bytes":%d}}`, msgs, chunk), true,
		})
	}
	cases = append(cases,
		sim{"embeddings", "/v1/embeddings", `{"model":"MODEL","input":["a b","c"]}`, true},
		sim{"score", "/v1/score", `{"model":"MODEL","text_1":"a b","text_2":["c","d"]}`, true},
		sim{"rerank", "/v1/rerank", `{"model":"MODEL","query":"a b","documents":["c","d"]}`, true},
		sim{"a slow reader", "/v1/chat/completions", `{"model":"MODEL","stream":true,"max_tokens":200,` + msgs + `,"sim":{"join":20}}`, true},
	)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			client := []*http.Client{s.h1, s.h2}[i%2]
			s.simulate(t, client, c.route, c.body, c.exact)
			s.report.add(row{group: "simulated", name: c.name, route: c.route, runs: 1, expected: "equals the engine's truth", got: "failed", ok: !t.Failed()})
		})
	}
}

func (s *suite) simulate(t *testing.T, client *http.Client, route, body string, exact bool) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+route, strings.NewReader(strings.ReplaceAll(body, "MODEL", s.model)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.key)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	got, rerr := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || (rerr != nil) == exact {
		t.Fatalf("status %d, %v: %.300s", resp.StatusCode, rerr, got)
	}
	id := resp.Header.Get("x-request-id")
	rec, found := s.record(t, id)
	s.saw(id)
	truth, ok := s.up.Sim.Truth(id)
	if !found || !ok {
		t.Fatalf("request %s: record %v, truth %v", id, found, ok)
	}
	s.checkTruth(t, rec, truth, exact)
	delivered := int64(strings.Count(string(got), `"content":"`) - strings.Count(string(got), `"content":""`))
	if !exact && rec.Completion < delivered {
		t.Errorf("delivered %d tokens, recorded %d", delivered, rec.Completion)
	}
}

func (s *suite) checkTruth(t *testing.T, rec Record, truth vllmsim.Truth, exact bool) {
	t.Helper()
	if rec.Prompt != int64(truth.PromptTokens) || rec.Quality != "exact" {
		t.Errorf("recorded prompt %d %s, the engine had %d", rec.Prompt, rec.Quality, truth.PromptTokens)
	}
	if rec.Completion > int64(truth.Completion()) || (exact && rec.Completion != int64(truth.Completion())) {
		t.Errorf("recorded %d tokens, the engine made %v", rec.Completion, truth.Generated)
	}
}
