package envoyadmin_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"tollgate/internal/envoyadmin"
)

// fake is an Envoy with so many requests, one less at each look.
type fake struct {
	mu       sync.Mutex
	requests int
	never    bool
	asked    []string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
	switch r.URL.Path {
	case "/stats":
		fmt.Fprintf(w, "http.edge.downstream_rq_active: %d\n", f.requests)
		if f.requests > 0 && !f.never {
			f.requests--
		}
	case "/ready":
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func start(t *testing.T, f *fake) *envoyadmin.Admin {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "a.sock")
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(func() { _ = server.Close() })
	return envoyadmin.New(socket)
}

func TestIdleCountsDown(t *testing.T) {
	a := start(t, &fake{requests: 2})
	var seen []int
	if err := a.Idle(t.Context(), func(n int) { seen = append(seen, n) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, []int{2, 1, 0}) {
		t.Errorf("seen %v", seen)
	}
}

func TestIdleEndsWithItsContext(t *testing.T) {
	a := start(t, &fake{requests: 1, never: true})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := a.Idle(ctx, func(int) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestQuestions(t *testing.T) {
	f := &fake{}
	a := start(t, f)
	if err := errors.Join(a.Discourage(t.Context()), a.Refuse(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := a.Live(t.Context()); err == nil {
		t.Error("an Envoy that is not ready counts as live")
	}
	if _, err := a.Stat(t.Context(), "a.b"); err != nil {
		t.Error(err)
	}
	want := []string{"POST /drain_listeners?graceful", "POST /drain_listeners", "GET /ready", `GET /stats?filter=^a%5C.b$`}
	if !slices.Equal(f.asked, want) {
		t.Errorf("asked %q, want %q", f.asked, want)
	}
	if err := envoyadmin.New(filepath.Join(t.TempDir(), "none")).Refuse(t.Context()); err == nil {
		t.Error("no error without an Envoy")
	}
}
