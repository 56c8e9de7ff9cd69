package unixsock_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tollgate/internal/unixsock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers every connection with one line until the listener is closed.
func echo(t *testing.T, l net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello\n")
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

func TestListenAndDialAtAnyPathLength(t *testing.T) {
	for name, dir := range map[string]string{"short": "run", "long": strings.Repeat("deep/", 40)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), dir, "a.sock")
			l, err := unixsock.Listen(path, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			echo(t, l)
			conn, err := unixsock.Dial(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			_ = conn.Close()
			if string(got) != "hello\n" || err != nil {
				t.Errorf("read: got %q, %v", got, err)
			}
			if got := l.Addr().String(); got != path {
				t.Errorf("address: got %q, want %q", got, path)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != 0o600 {
				t.Errorf("mode: got %o, want 600", got)
			}
			if err := l.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil || len(entries) != 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

func TestALiveSocketIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	l, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	if _, err := unixsock.Listen(path, 0o600); !errors.Is(err, unixsock.ErrInUse) {
		t.Fatalf("second Listen: got %v, want ErrInUse", err)
	}
	conn, err := unixsock.Dial(t.Context(), path)
	if err != nil {
		t.Fatalf("the first listener is gone: %v", err)
	}
	_ = conn.Close()
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	_ = old.Close()
	l, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	conn, err := unixsock.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestAFileIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := unixsock.Listen(path, 0o600); !errors.Is(err, unixsock.ErrNotSocket) {
		t.Fatalf("got %v, want ErrNotSocket", err)
	}
	if b, err := os.ReadFile(path); string(b) != "precious" || err != nil {
		t.Errorf("the file changed: %q, %v", b, err)
	}
}

func TestCloseLeavesASuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	first, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, second)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := unixsock.Dial(t.Context(), path)
	if err != nil {
		t.Fatalf("the successor's socket was removed: %v", err)
	}
	_ = conn.Close()
}

func TestHTTPOverASocketWithALongPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40), "a.sock")
	l, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.URL.Path)
		}),
		ReadHeaderTimeout: time.Second,
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })

	resp, err := unixsock.HTTPClient(path, 5*time.Second).Get("http://unix/state")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "/state" {
		t.Errorf("got %q", b)
	}
}
