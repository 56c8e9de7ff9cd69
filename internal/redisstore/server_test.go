package redisstore_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"tollgate/internal/redisstore"
)

// binary is the Redis or Valkey of this machine: REDIS_SERVER_BIN, PATH, then
// what scripts/fetch_redis.py fetched. Where there is none the test is skipped
// by name, or fails when E2E=require.
func binary(tb testing.TB) string {
	tb.Helper()
	if named := os.Getenv("REDIS_SERVER_BIN"); named != "" {
		return named
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	fetched, err := filepath.Glob("../../.cache/redis/*/redis-server")
	switch {
	case err != nil:
		tb.Fatal(err)
	case len(fetched) > 0:
		return fetched[len(fetched)-1]
	case os.Getenv("E2E") == "require":
		tb.Fatal("E2E=require, but there is no redis-server: run scripts/fetch_redis.py")
	default:
		tb.Skip("needs a real Redis or Valkey, see scripts/fetch_redis.py")
	}
	return ""
}

// server is a Redis that a test started.
type server struct {
	t       testing.TB
	bin     string
	args    []string
	address string
	process *os.Process
	exited  chan struct{}
}

// startServer starts a server that keeps nothing on disk unless it is told to,
// and stops it with the test.
func startServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	if len(args) == 0 {
		args = []string{"--save", "", "--appendonly", "no"}
	}
	s := &server{t: tb, bin: binary(tb), args: args}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.address = lis.Addr().String()
	lis.Close()
	s.start()
	tb.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	bin, err := filepath.Abs(s.bin)
	if err != nil {
		s.t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(bin, append(s.args, "--port", port, "--bind", "127.0.0.1")...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.t.TempDir(), &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.process, s.exited = cmd.Process, exited
	await(s.t, 10*time.Second, "the server", func() bool {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// kill ends the server at once; what it held is lost.
func (s *server) kill() {
	_ = s.process.Kill()
	<-s.exited
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// dial returns a plain client.
func (s *server) dial() rueidis.Client {
	s.t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.address}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// open opens a store on the server.
func (s *server) open(tb testing.TB, change ...func(*redisstore.Options)) *redisstore.Store {
	tb.Helper()
	o := redisstore.Options{Addresses: []string{s.address}, Timeout: time.Second}
	for _, c := range change {
		c(&o)
	}
	store, err := redisstore.Open(context.Background(), o)
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return store
}

// await wants a condition within a time.
func await(tb testing.TB, within time.Duration, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(within)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			tb.Fatalf("%s: not within %v", what, within)
		}
	}
}
