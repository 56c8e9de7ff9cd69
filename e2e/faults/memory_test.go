package faults_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// memory reads a value of a process's status, in bytes.
func memory(t *testing.T, pid int, field string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

// forgetPeak makes VmHWM start anew.
func forgetPeak(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200); err != nil {
		t.Skipf("the peak of memory cannot be reset here: %v", err)
	}
}

// repeat writes a block until n bytes have been written.
func repeat(block []byte, n int64) func(io.Writer) error {
	return func(w io.Writer) error {
		for n > 0 {
			b := block[:min(int64(len(block)), n)]
			if _, err := w.Write(b); err != nil {
				return err
			}
			n -= int64(len(b))
		}
		return nil
	}
}

func joined(parts ...func(io.Writer) error) func(io.Writer) error {
	return func(w io.Writer) error {
		for _, p := range parts {
			if err := p(w); err != nil {
				return err
			}
		}
		return nil
	}
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func TestMemoryIsBoundedWhateverTheEngineSends(t *testing.T) {
	const (
		mib   = 1 << 20
		tiny  = `data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}` + "\n\n"
		end   = `data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}` + "\n\ndata: [DONE]\n\n"
		plain = `{"model":"tiny","stream":true,"messages":[{"role":"user","content":"MARK"}]}`
		all   = `{"model":"tiny","stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"messages":[{"role":"user","content":"MARK"}]}`
		body  = `{"model":"tiny","messages":[{"role":"user","content":"MARK"}]}`
	)
	up := stack.StartUpstream(t, "", vllmsim.Options{})
	s := stack.Start(t, stack.Options{Engine: up.Addr})
	block := bytes.Repeat([]byte("x"), 64<<10)
	events := bytes.Repeat([]byte(tiny), 64)
	noLine := int64(times(128, 1024)) * mib
	many := int64(times(100_000, 1_000_000))
	ask := func(request string, write func(io.Writer) error) (id string, n int64) {
		t.Helper()
		kind := "text/event-stream"
		if request == body {
			kind = "application/json"
		}
		mark := up.On(&stack.Reply{ContentType: kind, Write: write})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, strings.NewReader(strings.Replace(request, "MARK", mark, 1)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+stack.Key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := s.HTTP1.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		n, err = io.Copy(io.Discard, resp.Body)
		if err != nil {
			t.Errorf("read: %v after %d bytes", err, n)
		}
		return resp.Header.Get("x-request-id"), n
	}
	bigHead, bigTail := `data: {"choices":[{"index":0,"delta":{"content":"`, `"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}`+"\n\n"
	for _, c := range []struct {
		name    string
		request string
		write   func(io.Writer) error
		bytes   int64 // that the client must get; 0 = not compared
		total   int64 // completion tokens recorded
	}{
		{"warm up", all, joined(repeat(events, 16*mib/int64(len(tiny))*int64(len(tiny))), text(end)), 0, 1},
		{"warm up, removing", plain, joined(repeat(events, 16*mib/int64(len(tiny))*int64(len(tiny))), text(end)), 0, 1},
		{"no line end", plain, joined(text("data: "), repeat(block, noLine)), noLine + 6, 0},
		{"tiny events", all, joined(repeat(events, many*int64(len(tiny))), text(end)), many*int64(len(tiny)) + int64(len(end)), 1},
		{"tiny events, usage removed", plain, joined(repeat(events, many*int64(len(tiny))), text(end)), many*int64(len(`data: {"choices":[{"index":0,"delta":{"content":"a"}}]}`+"\n\n")) + int64(len("data: [DONE]\n\n")), 1},
		{"an event of 64 MiB", plain, joined(text(bigHead), repeat(block, 64*mib), text(bigTail+end)), int64(len(bigHead)) + 64*mib + int64(len(bigTail)) + int64(len("data: [DONE]\n\n")), 1},
		{"a body of 64 MiB", body, joined(text(`{"choices":[{"index":0,"message":{"content":"`), repeat(block, 64*mib), text(`"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}`)), 0, 1},
		{"spaces without end", body, joined(repeat(bytes.Repeat([]byte(" "), 64<<10), noLine), text(`{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}`)), 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid := s.Tollgate.PID()
			forgetPeak(t, pid)
			before := memory(t, pid, "VmRSS")
			id, n := ask(c.request, c.write)
			grown := memory(t, pid, "VmHWM") - before
			if c.bytes > 0 && n != c.bytes {
				t.Errorf("the client got %d bytes, want %d", n, c.bytes)
			}
			if r := s.Settled(id); r.Counts.Completion != c.total && c.total > 0 {
				t.Errorf("recorded %d tokens, want %d", r.Counts.Completion, c.total)
			}
			// What is held is a few buffers; the rest is what the collector lets
			// stand at gigabytes a second. Holding the answer would be 64 MiB or more.
			if grown > 48*mib && !strings.HasPrefix(c.name, "warm") {
				t.Errorf("tollgate grew by %d MiB: it holds what it should pass", grown/mib)
			}
			t.Logf("%d bytes, tollgate grew by %.1f MiB", n, float64(grown)/mib)
		})
	}
}
