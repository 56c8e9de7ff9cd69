//go:build vllm

package vllm_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/e2e/stack"
	"tollgate/internal/otlp"
	"tollgate/internal/trace"
)

// TestOneTree: a client that traces, the gateway and a real vLLM with its OTLP switch
// send their spans to one collector, and they are one tree with one account of tokens.
func TestOneTree(t *testing.T) { //nolint:gocyclo // one story, told step by step
	c := stack.StartCollector(t, t.TempDir())
	traced := strings.NewReplacer(`"--enforce-eager"`, fmt.Sprintf(`"--enforce-eager", "--otlp-traces-endpoint", "http://%s"`, c.GRPC))
	h := launchWith(t, section(t, traced, ""), fmt.Sprintf("otel: {endpoint: %q}\n", c.GRPC)).run(t)
	client, err := otlp.New(otlp.Options{
		Target: &url.URL{Scheme: "http", Host: c.GRPC}, Version: "test", Reg: prometheus.NewRegistry(), Log: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	for _, stream := range []bool{false, true} {
		root, passed := trace.NewSampler(1).Begin(nil)
		began := time.Now()
		body := withT
		if stream {
			body = strings.Replace(withT, "{", `{"stream":true,`, 1)
		}
		a := h.Post(chat, body, "traceparent", passed.Traceparent)
		if a.StatusCode != http.StatusOK {
			t.Fatalf("status %d: %s", a.StatusCode, a.Bytes)
		}
		client.Send(otlp.Span{Span: root, Name: "client", Begin: began, End: time.Now()})
		rec := h.Settled(a.RequestID())

		find := func(what string, fits func(*stack.Span) bool) stack.Span {
			return c.Find(what, func(s *stack.Span) bool { return s.Trace == root.TraceID() && fits(s) })
		}
		top := find("the client's span", func(s *stack.Span) bool { return s.Name == "client" })
		ours := find("the gateway's span", func(s *stack.Span) bool { return s.Resource["service.name"] == "tollgate" && s.ID != top.ID })
		theirs := find("vLLM's span", func(s *stack.Span) bool { return s.Name == "llm_request" })
		if top.Parent != "" || ours.Parent != top.ID || theirs.Parent != ours.ID {
			t.Errorf("stream %v: no tree: %s of %q, %s of %s, %s of %s", stream, top.ID, top.Parent, ours.ID, ours.Parent, theirs.ID, theirs.Parent)
		}
		for _, name := range []string{"gen_ai.usage.output_tokens", "gen_ai.usage.input_tokens", "gen_ai.usage.completion_tokens", "gen_ai.usage.prompt_tokens"} {
			want := rec.Counts.Completion
			if strings.Contains(name, "input") || strings.Contains(name, "prompt") {
				want = rec.Counts.Prompt
			}
			for _, s := range []stack.Span{ours, theirs} {
				if got, says := s.Attributes[name]; says && got != want {
					t.Errorf("stream %v: %s of %s is %v, the ledger has %d", stream, name, s.Name, got, want)
				}
			}
		}
		if ours.Begin.Before(top.Begin.Add(-time.Millisecond)) || ours.End.After(top.End.Add(time.Second)) || theirs.Begin.Before(ours.Begin.Add(-time.Millisecond)) {
			t.Errorf("stream %v: times: client %v to %v, gateway %v to %v, vLLM from %v", stream, top.Begin, top.End, ours.Begin, ours.End, theirs.Begin)
		}
		t.Logf("stream %v: client %v, gateway %v, vLLM %v; vLLM says %v", stream, top.End.Sub(top.Begin), ours.End.Sub(ours.Begin), theirs.End.Sub(theirs.Begin), theirs.Attributes)
	}
}
