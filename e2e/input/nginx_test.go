package input_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestBehindAPlainNginx: proxy_pass and nothing else, which means HTTP/1.0 towards
// the gateway, its address as the host, and answers held back in a buffer unless the
// gateway says otherwise.
func TestBehindAPlainNginx(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: manyKeys})
	for name, directives := range map[string]string{
		"bare":            "location / { proxy_pass " + s.URL + "; }",
		"as is advised":   "location / { proxy_pass " + s.URL + "; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; proxy_read_timeout 660s; }",
		"buffering is on": "location / { proxy_pass " + s.URL + "; proxy_buffering on; proxy_buffers 8 64k; proxy_buffer_size 64k; }",
	} {
		t.Run(name, func(t *testing.T) {
			behind := s.At(s.Nginx(directives))
			if a := behind.Post(stack.ChatPath, hello); a.StatusCode != http.StatusOK {
				t.Fatalf("not streamed: %d %s", a.StatusCode, a.Bytes)
			}
			streamsTokenByToken(t, s, behind)
			a := behind.Do(behind.HTTP1, "POST", stack.ChatPath, hello, "Authorization", "Bearer "+defaultKey)
			if a.StatusCode != http.StatusUnauthorized {
				t.Errorf("the default key passes behind a proxy: %d %s", a.StatusCode, a.Bytes)
			}
			if a := behind.Do(behind.HTTP1, "GET", "/v1/models/tiny", "", "Authorization", "Bearer "+stack.Key); a.StatusCode != http.StatusOK {
				t.Errorf("one model: %d %s", a.StatusCode, a.Bytes)
			}
		})
	}
}

// streamsTokenByToken: the client has what the engine has said while the engine
// still thinks.
func streamsTokenByToken(t *testing.T, s, behind *stack.Stack) {
	t.Helper()
	a, _ := behind.Open(behind.HTTP1, stack.Key, stack.Chat(true, 12, `"pause_after":5`))
	if a.StatusCode != http.StatusOK {
		t.Fatalf("streamed: %d", a.StatusCode)
	}
	events := make(chan string)
	go func() {
		defer close(events)
		for in := bufio.NewReader(a.Body); ; {
			line, err := in.ReadString('\n')
			if strings.HasPrefix(line, "data: ") {
				events <- line
			}
			if err != nil {
				if err != io.EOF {
					t.Errorf("the stream broke off: %v", err)
				}
				return
			}
		}
	}()
	late := time.After(20 * time.Second)
	for range 5 {
		select {
		case <-events:
		case <-late:
			s.Sim.Release()
			t.Fatal("what the engine has said is held back")
		}
	}
	s.Sim.Release()
	last := ""
	for event := range events {
		last = event
	}
	if !strings.Contains(last, "[DONE]") {
		t.Errorf("the last event is %q", last)
	}
}
