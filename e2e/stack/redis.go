package stack

import (
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// RedisBinary is the Redis or Valkey of this machine, or the fetched one; see
// [program].
func RedisBinary(tb testing.TB) string {
	tb.Helper()
	return program(tb, "REDIS_SERVER_BIN", "redis/*/redis-server", "scripts/fetch_redis.py", "redis-server", "valkey-server")
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
