package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/bench/internal/clock"
	"tollgate/bench/internal/load"
	"tollgate/bench/internal/script"
	"tollgate/bench/internal/upstream"
	"tollgate/internal/usage"
)

// startUpstream serves an upstream in this process and returns its URL.
func startUpstream(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- upstream.New().Serve(ctx, lis) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "http://" + lis.Addr().String()
}

func fetch(t *testing.T, req *http.Request) string {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func truthOf(t *testing.T, url string) *upstream.Truth {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+upstream.PathTruth, http.NoBody)
	truth := &upstream.Truth{}
	if err := json.Unmarshal([]byte(fetch(t, req)), truth); err != nil {
		t.Fatal(err)
	}
	return truth
}

// truthWhen is the truth once it is as wanted, or after 5 s: the upstream counts
// a chunk after it was written, so its reader may be ahead.
func truthWhen(t *testing.T, url string, wanted func(*upstream.Truth) bool) *upstream.Truth {
	t.Helper()
	truth := truthOf(t, url)
	for end := time.Now().Add(5 * time.Second); !wanted(truth) && time.Now().Before(end); truth = truthOf(t, url) {
		time.Sleep(time.Millisecond)
	}
	return truth
}

func ask(t *testing.T, url, id, body string, s script.Script) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(script.Header, s.String())
	req.Header.Set("x-request-id", id)
	return req
}

const streamed = `{"model":"bench","stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`

func TestUpstreamSpeaksAsVLLMDoesAndMeterAgrees(t *testing.T) {
	url := startUpstream(t)
	body := fetch(t, ask(t, url, "a", streamed, script.Script{Chunks: 5, Every: time.Millisecond}))
	meter := usage.NewMeter(usage.Options{Format: usage.Chat, SSE: true, Choices: 1, Prompts: 1})
	meter.Feed([]byte(body), true)
	report := meter.Report()
	if report.End != usage.Done || !report.Final || report.Counts.Completion != 5 || report.Counts.Prompt != upstream.PromptTokens {
		t.Errorf("the gateway's own meter read %+v", report)
	}
	if got := strings.Count(body, `"usage":{`); got != 7 {
		t.Errorf("usage objects: got %d, want 7: role, 5 chunks, end\n%s", got, body)
	}
	quiet := fetch(t, ask(t, url, "b", `{"stream":true}`, script.Script{Chunks: 5}))
	if strings.Contains(quiet, "usage") || strings.Count(quiet, "data: {") != 6 {
		t.Errorf("usage was not asked for: %s", quiet)
	}
	whole := fetch(t, ask(t, url, "c", `{}`, script.Script{Chunks: 7}))
	var doc struct {
		Usage struct {
			Completion int `json:"completion_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal([]byte(whole), &doc); err != nil || doc.Usage.Completion != 7 {
		t.Errorf("JSON answer: got %d tokens, %v", doc.Usage.Completion, err)
	}
	want := map[string]upstream.Record{
		"a": {Written: 5, Done: true, Attempts: 1}, "b": {Written: 5, Done: true, Attempts: 1}, "c": {Written: 7, Done: true, Attempts: 1},
	}
	truth := truthWhen(t, url, func(u *upstream.Truth) bool { return cmp.Equal(want, u.Records) })
	if diff := cmp.Diff(want, truth.Records); diff != "" {
		t.Errorf("truth (-want +got)\n%s", diff)
	}
}

func TestUpstreamKnowsWhatItCut(t *testing.T) {
	url := startUpstream(t)
	resp, err := http.DefaultClient.Do(ask(t, url, "cut", streamed, script.Script{Chunks: 50, Every: time.Millisecond, Cut: 3}))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("a cut answer ended as if it were whole")
	}
	truth := truthWhen(t, url, func(u *upstream.Truth) bool { return u.Records["cut"].Written >= 3 })
	if got := truth.Records["cut"]; got.Done || got.Written != 3 {
		t.Errorf("got %+v, want 3 written and not done", got)
	}
}

func TestDriverCountsWhatTheUpstreamWrote(t *testing.T) {
	url := startUpstream(t)
	j := load.Job{
		URL: url, Model: upstream.Model, Closed: 8, Duration: 150 * time.Millisecond, Stream: true, Ask: true,
		Script: script.Script{Chunks: 20, Every: time.Millisecond},
	}
	res, err := load.Run(t.Context(), &j, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Failed() > 0 || res.Requests == 0 || res.Complete != res.Requests || res.Chunks != 20*res.Requests {
		t.Errorf("got %d requests, %d complete, %d chunks, errors %v", res.Requests, res.Complete, res.Chunks, res.Errors)
	}
	got := truthWhen(t, url, func(u *upstream.Truth) bool { return u.Tokens >= res.Chunks }).Tokens
	if got != res.Chunks {
		t.Errorf("the upstream wrote %d chunks and %d came", got, res.Chunks)
	}
	if n := res.Lag.Count(); n != uint64(res.Chunks-res.Requests) || res.Lag.Quantile(0.5) <= 0 || res.Lag.Quantile(0.5) > 5e9 {
		t.Errorf("delays of %d chunks, median %d ns", n, res.Lag.Quantile(0.5))
	}
}

func TestDriverHoldsStreamsOverHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("got %s, want HTTP/2", r.Proto)
		}
		fmt.Fprintf(w, "data: {\"delta\":{\"content\":\" %019d\"}}\n\n", clock.Now())
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var open atomic.Int32
	j := load.Job{URL: server.URL, HTTP2: true, Closed: 20, Hold: true, Stream: true, Script: script.Script{Chunks: 1, Stall: true}}
	res, err := load.Run(ctx, &j, func() {
		if open.Add(1) == 20 {
			cancel() // it would hold them for ever
		}
	})
	if err != nil || res.Failed() > 0 || res.Chunks != 20 || res.Cut != 20 {
		t.Errorf("got %d chunks, %d held to the end, errors %v, %v", res.Chunks, res.Cut, res.Errors, err)
	}
}

func TestDriverAbortsAndOpensAtARate(t *testing.T) {
	url := startUpstream(t)
	j := load.Job{
		URL: url, Model: upstream.Model, Rate: 200, Duration: 200 * time.Millisecond, Stream: true, Abort: 0.3, Cut: 0.3, Seed: 7,
		Script: script.Script{Chunks: 10, Every: time.Millisecond},
	}
	res, err := load.Run(t.Context(), &j, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 40 {
		t.Errorf("200 a second for 200 ms: got %d requests, want 40", res.Requests)
	}
	if res.Aborted == 0 || res.Cut == 0 || res.Complete == 0 || res.Aborted+res.Cut+res.Complete != res.Requests {
		t.Errorf("got %d aborted, %d cut, %d complete, errors %v", res.Aborted, res.Cut, res.Complete, res.Errors)
	}
	dead := load.Job{URL: "http://127.0.0.1:1", Rate: 10, Duration: 100 * time.Millisecond, Stream: true}
	if res, err = load.Run(t.Context(), &dead, nil); err != nil || res.Failed() != res.Requests || res.Requests == 0 {
		t.Errorf("nobody listens: got %d of %d failed, %v", res.Failed(), res.Requests, err)
	}
}
