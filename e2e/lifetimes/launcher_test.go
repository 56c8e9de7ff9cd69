package lifetimes_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// TestOldStreamsOutliveCtrlC: the launcher stops Envoy when its streams have
// ended, not before, so that whatever a SIGTERM does to Envoy meets no stream.
func TestOldStreamsOutliveCtrlC(t *testing.T) {
	t.Parallel()
	l := startLauncher(t)
	last := age + 3*time.Second
	var streams []<-chan string
	for _, stream := range []bool{true, true, false} {
		streams = append(streams, l.ask(stream, last))
	}
	time.Sleep(age)
	l.Signal(syscall.SIGINT)
	for i, s := range streams {
		if got := <-s; got != "" {
			t.Errorf("stream %d: %s", i, got)
		}
	}
	if code := l.Exit(30 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	rows := 0
	for _, r := range l.s.Records() {
		if r.Endpoint != stack.ChatPath {
			continue
		}
		rows++
		if r.Reason != ledger.Complete || r.Quality != ledger.Exact || r.Counts.Completion != tokens {
			t.Errorf("the row says %s %s, %d tokens; want complete, exact, %d", r.Reason, r.Quality, r.Counts.Completion, tokens)
		}
	}
	if rows != len(streams) {
		t.Errorf("%d rows, want %d", rows, len(streams))
	}
}

// launched is a whole host that a launcher runs.
type launched struct {
	*stack.Launcher
	t *testing.T
	s *stack.Stack // its configuration and ledger; it has started nothing
}

func startLauncher(t *testing.T) *launched {
	t.Helper()
	s := stack.Start(t, stack.Options{Workers: 1, NoStart: true})
	l := &launched{stack.NewLauncher(t, s.Dir, s.URL), t, s}
	l.Start()
	s.Ready()
	return l
}

// ask sends a request that takes so long, and tells what was wrong with its
// answer, "" when it was whole.
func (l *launched) ask(stream bool, lasts time.Duration) <-chan string {
	l.t.Helper()
	body := stack.Chat(stream, tokens, fmt.Sprintf(`"tokens":%d,"delay_ms":%d`, tokens, lasts.Milliseconds()/tokens))
	req, err := http.NewRequest(http.MethodPost, l.s.URL+stack.ChatPath, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	wrong := make(chan string, 1)
	go func() {
		resp, err := l.s.HTTP1.Do(req)
		if err != nil {
			wrong <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		got, err := io.ReadAll(resp.Body)
		whole := strings.Contains(string(got), choose(stream, "data: [DONE]", `"usage"`))
		if err != nil || !whole {
			wrong <- fmt.Sprintf("status %d, %v after %d bytes", resp.StatusCode, err, len(got))
		}
		close(wrong)
	}()
	return wrong
}
