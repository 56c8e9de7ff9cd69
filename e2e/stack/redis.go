package stack

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// RedisBinary is the Redis or Valkey of this machine: REDIS_SERVER_BIN, PATH,
// then what scripts/fetch_redis.py fetched. Where there is none the test is
// skipped by name; with E2E=require it fails instead.
func RedisBinary(tb testing.TB) string {
	tb.Helper()
	if named := os.Getenv("REDIS_SERVER_BIN"); named != "" {
		return named
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	fetched, err := filepath.Glob(filepath.Join(moduleRoot(tb), ".cache/redis/*/redis-server"))
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

// Redis is a real server that keeps nothing on disk: killed and started again
// it is empty.
type Redis struct {
	*Process
	Addr string // host:port
}

// StartRedis starts a server on a free loopback port and waits until it
// listens.
func StartRedis(tb testing.TB) *Redis {
	tb.Helper()
	bin, dir, port := RedisBinary(tb), tb.TempDir(), strconv.Itoa(FreePort(tb))
	r := &Redis{Addr: net.JoinHostPort("127.0.0.1", port)}
	r.Process = &Process{tb: tb, name: "redis", log: filepath.Join(dir, "redis.out"), command: func() *exec.Cmd {
		cmd := exec.Command(bin, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no") //nolint:gosec // this machine's own
		cmd.Dir = dir
		return cmd
	}}
	r.Start()
	return r
}

// Start starts the server, again after a Kill, and waits until it listens.
func (r *Redis) Start() {
	r.tb.Helper()
	r.Process.Start()
	Eventually(r.tb, 10*time.Second, "Redis to listen", func() bool {
		conn, err := net.Dial("tcp", r.Addr)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}
