package serve_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"tollgate/internal/serve"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	lis, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

// start runs execute; the channel has what it returned.
func start(execute func() error) chan error {
	done := make(chan error, 1)
	go func() { done <- execute() }()
	return done
}

func await(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("served: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not stop")
	}
}

func TestHTTPWaitsForARequestAndThenCutsIt(t *testing.T) {
	for name, c := range map[string]struct {
		grace time.Duration
		whole bool
	}{"within the grace": {20 * time.Second, true}, "beyond it": {time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			lis, release, inside := listen(t), make(chan struct{}), make(chan struct{})
			execute, interrupt := serve.HTTP(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(inside)
				select {
				case <-release:
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(w, "whole")
			}), lis, c.grace)
			done, answer := start(execute), make(chan string, 1)
			go func() {
				resp, err := http.Get("http://" + lis.Addr().String())
				if err != nil {
					answer <- ""
					return
				}
				defer func() { _ = resp.Body.Close() }()
				body, _ := io.ReadAll(resp.Body)
				answer <- string(body)
			}()
			<-inside
			stopped := start(func() error { interrupt(nil); return nil })
			if c.whole {
				close(release)
			}
			if got := <-answer; (got == "whole") != c.whole {
				t.Errorf("the client got %q", got)
			}
			await(t, stopped)
			await(t, done)
		})
	}
}

func TestHTTPSaysThatItsListenerIsGone(t *testing.T) {
	lis := listen(t)
	execute, _ := serve.HTTP(t.Context(), http.NotFoundHandler(), lis, time.Second)
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	if err := execute(); err == nil {
		t.Error("no error")
	}
}

func TestGRPCDrainsBeforeItStops(t *testing.T) {
	lis, s, h := listen(t), grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	var drained atomic.Bool
	execute, interrupt := serve.GRPC(s, lis, func() { drained.Store(true) }, time.Millisecond)
	done := start(execute)
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// A watch never ends by itself: it is cut after the grace.
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	interrupt(nil)
	await(t, done)
	if !drained.Load() {
		t.Error("drain was not called")
	}
	if _, err := watch.Recv(); err == nil {
		t.Error("the watch lives")
	}
}

func TestALoopEndsByItsTurnAndNotWithTheProcess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	execute, interrupt := serve.Loop(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil })
	done := start(execute)
	cancel()
	select {
	case <-done:
		t.Fatal("it ended with its parent")
	case <-time.After(50 * time.Millisecond):
	}
	interrupt(nil)
	await(t, done)
}

func TestAPageOnLoopbackHasOnlyLoopbackNames(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })
	ask := func(h http.Handler, host string) int {
		r := httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	loopback := &net.TCPAddr{IP: net.ParseIP("127.0.0.1"), Port: 9464}
	for host, want := range map[string]int{
		"127.0.0.1:9464": 200, "127.0.0.1": 200, "127.8.8.8:1": 200, "localhost:9464": 200, "LocalHost": 200, "localhost.": 200, "[::1]:9464": 200, "[::1]": 200,
		"evil.example:9464": 403, "evil.example": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403, "10.0.0.1:9464": 403, "": 403, "0.0.0.0:9464": 403,
	} {
		if got := ask(serve.SameHost(page, loopback), host); got != want {
			t.Errorf("Host %q: %d, want %d", host, got, want)
		}
	}
	for _, lis := range []net.Addr{&net.TCPAddr{IP: net.IPv4zero}, &net.TCPAddr{IP: net.ParseIP("10.0.0.1")}, &net.UnixAddr{Name: "x"}} {
		if got := ask(serve.SameHost(page, lis), "gateway.example:9464"); got != http.StatusOK {
			t.Errorf("on %v: %d", lis, got)
		}
	}
}
