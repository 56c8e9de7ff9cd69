package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/internal/unixsock"
)

// TestMain makes the test binary play every process of a stack: by its name
// tollgate and Envoy, by its first argument the launcher itself.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "tollgate":
		os.Exit(code(fakeTollgate())) //nolint:forbidigo // it plays a process
	case "envoy":
		if len(os.Args) == 2 && os.Args[1] == "--version" {
			fmt.Fprintf(os.Stdout, "envoy  version: 0123456789abcdef/%s/Clean/RELEASE/BoringSSL\n", envoy.Version)
			os.Exit(0) //nolint:forbidigo // as below
		}
		os.Exit(code(fakeEnvoy())) //nolint:forbidigo // as above
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		main()
	}
	goleak.VerifyTestMain(m)
}

func code(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fakeTollgate answers the gRPC health service where tollgate does.
func fakeTollgate() error {
	switch strings.Join(os.Args[1:], " ") {
	case "--version":
		fmt.Fprintln(os.Stdout, "tollgate of "+filepath.Base(filepath.Dir(os.Args[0])))
		return nil
	case "config check --config config.yaml":
		if strings.HasPrefix(filepath.Base(filepath.Dir(os.Args[0])), "picky") {
			return errors.New("config.yaml:1:1: this version has no such setting")
		}
		return nil
	}
	if strings.HasPrefix(filepath.Base(filepath.Dir(os.Args[0])), "broken") {
		return errors.New("it does not work")
	}
	if len(os.Args) < 4 || os.Args[1] != "serve" || os.Args[2] != "--config" {
		return fmt.Errorf("wrong arguments: %q", os.Args)
	}
	cfg, err := config.Load(os.Args[3])
	if err != nil {
		return err
	}
	l, err := unixsock.Listen(cfg.InState(config.GRPCSocket), 0o600)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, s.Stop)
	fmt.Fprintln(os.Stdout, "tollgate serves")
	return s.Serve(l)
}

// fakeEnvoy has the admin page and an edge, whose address stands in a file in
// its working directory. A stream lasts as long as the query says.
func fakeEnvoy() error {
	address, err := os.ReadFile("fake-edge")
	if err != nil {
		return err
	}
	adminL, err := unixsock.Listen(config.EnvoyAdminSocket, 0o600)
	if err != nil {
		return err
	}
	edgeL, err := net.Listen("tcp", string(address))
	if err != nil {
		return err
	}
	var active atomic.Int64
	edge := http.NewServeMux()
	edge.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat("fake-unhealthy"); err == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	edge.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		active.Add(1)
		defer active.Add(-1)
		d, _ := time.ParseDuration(r.URL.Query().Get("for"))
		fmt.Fprintln(w, "begin")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(d):
			fmt.Fprintln(w, "end")
		case <-r.Context().Done():
		}
	})
	admin := http.NewServeMux()
	admin.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "LIVE") })
	admin.HandleFunc("POST /drain_listeners", func(http.ResponseWriter, *http.Request) { _ = edgeL.Close() })
	admin.HandleFunc("GET /stats", func(w http.ResponseWriter, r *http.Request) {
		switch strings.ReplaceAll(r.URL.Query().Get("filter"), `\`, "") {
		case "^http.edge.downstream_rq_active$":
			fmt.Fprintf(w, "http.edge.downstream_rq_active: %d\n", active.Load())
		case "^cluster.vllm.membership_healthy$":
			fmt.Fprintln(w, "cluster.vllm.membership_healthy: 1")
		}
	})
	go func() { _ = http.Serve(edgeL, edge) }()
	go func() { _ = http.Serve(adminL, admin) }()
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
	return nil // as Envoy, it leaves its socket behind
}
