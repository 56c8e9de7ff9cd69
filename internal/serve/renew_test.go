package serve_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"tollgate/internal/serve"
)

// TestOldConnectionsEndWithTheirNextAnswer, and young ones stay.
func TestOldConnectionsEndWithTheirNextAnswer(t *testing.T) {
	for age, want := range map[time.Duration]bool{time.Hour: false, time.Nanosecond: true} {
		lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
		run, stop := serve.HTTP(context.WithoutCancel(t.Context()), serve.Renew(page, age), lis, time.Second)
		done := make(chan error, 1)
		go func() { done <- run() }()
		client := &http.Client{Transport: new(http.Transport)}
		resp, err := client.Get("http://" + lis.Addr().String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.Close != want {
			t.Errorf("a connection older than %v: ends %v, want %v", age, resp.Close, want)
		}
		client.CloseIdleConnections()
		stop(nil)
		if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}
}
