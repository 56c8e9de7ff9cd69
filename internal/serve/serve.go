// Package serve gives listeners the two halves that a run group needs: one that
// serves, and one that stops within a bounded time.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// GRPC returns the two halves for a gRPC server. The second one first calls drain,
// which lets streams end by themselves and cuts what does not; then it stops the
// server: it closes connections after grace and waits for the handlers that still work.
// Each handler bounds its own work (a settlement).
func GRPC(s *grpc.Server, lis net.Listener, drain func(), grace time.Duration) (execute func() error, interrupt func(error)) {
	execute = func() error {
		if err := s.Serve(lis); err != nil {
			return fmt.Errorf("serve gRPC on %s: %w", lis.Addr(), err)
		}
		return nil
	}
	interrupt = func(error) {
		drain()
		// GracefulStop alone never returns while a stream lives.
		cut := time.AfterFunc(grace, s.Stop)
		defer cut.Stop()
		s.GracefulStop()
	}
	return execute, interrupt
}

// HTTP returns the two halves for an HTTP server; the second one waits at most
// grace for running requests.
func HTTP(ctx context.Context, h http.Handler, lis net.Listener, grace time.Duration) (execute func() error, interrupt func(error)) {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, openedKey{}, time.Now())
		},
	}
	execute = func() error {
		if err := s.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP on %s: %w", lis.Addr(), err)
		}
		return nil
	}
	interrupt = func(error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			_ = s.Close()
		}
	}
	return execute, interrupt
}

// openedKey has the time at which the connection of a request came to [HTTP].
type openedKey struct{}

// Renew ends connections to [HTTP] that are older than age with their next answer, so
// that their clients show their certificates again.
func Renew(h http.Handler, age time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if opened, ok := r.Context().Value(openedKey{}).(time.Time); ok && time.Since(opened) > age {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// Loop returns the two halves for something that runs until its context ends.
// The end of ctx does not end it: the order of the group does.
func Loop(ctx context.Context, run func(context.Context) error) (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return func() error { return run(ctx) }, func(error) { cancel() }
}

// SameHost refuses (403) requests whose Host is not a name of this machine, where the
// listener has a loopback address. Otherwise a foreign web page in a browser on this
// machine could point its own name here (DNS rebinding) and read pages that need no
// key; it cannot choose the Host that the browser sends. Where the listener has another
// address every name passes, because the names of that address are not known.
func SameHost(h http.Handler, lis net.Addr) http.Handler {
	tcp, ok := lis.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopbackName(r.Host) {
			http.Error(w, "This page listens on loopback and answers only there: ask for it as 127.0.0.1, [::1] or localhost.", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// loopbackName reports whether a Host, with or without a port, is a name of this
// machine.
func loopbackName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(strings.TrimSuffix(name, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}
