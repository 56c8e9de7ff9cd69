package redisstore_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"tollgate/internal/limit"
)

// TestFailoverThroughSentinel is promise R6: the primary dies, Sentinel promotes
// its replica, and the store finds it. What the promoted server holds is used,
// what it lost is brought back.
func TestFailoverThroughSentinel(t *testing.T) {
	t.Parallel()
	primary := startServer(t)
	host, port, err := net.SplitHostPort(primary.address)
	if err != nil {
		t.Fatal(err)
	}
	standby := startServer(t, "--save", "", "--replicaof", host, port)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor orders %s %s 1\nsentinel down-after-milliseconds orders 500\nsentinel failover-timeout orders 3000\n", host, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := startServer(t, conf, "--sentinel")
	says := func(client rueidis.Client, want string, command ...string) func() bool {
		return func() bool {
			got, err := client.Do(t.Context(), client.B().Arbitrary(command...).Build()).ToAny()
			return err == nil && strings.Contains(fmt.Sprint(got), want)
		}
	}
	await(t, 10*time.Second, "replication", says(standby.dial(), "master_link_status:up", "INFO", "replication"))
	_, standbyPort, _ := net.SplitHostPort(standby.address)
	await(t, 30*time.Second, "Sentinel knows both", says(sentinel.dial(), standbyPort, "SENTINEL", "REPLICAS", "orders"))

	store := openAt(t, "orders@"+sentinel.address, 200*time.Millisecond)
	c := caps(func(c *limit.Caps) { c.Global = 2 })
	admit(t, store, "replicated", c)
	watch := standby.dial()
	await(t, 5*time.Second, "the lease is on the replica", says(watch, "replicated", "ZRANGE", "{tollgate}:leases", "0", "-1"))

	primary.kill()
	died := time.Now()
	admit(t, store, "local", c)
	if !store.Partitioned() {
		t.Error("the primary is dead, and the store does not know")
	}
	await(t, 30*time.Second, "rejoined", func() bool { return !store.Partitioned() })
	t.Logf("rejoined %v after the death of the primary", time.Since(died).Round(time.Millisecond))
	if got := acquire(t, store, "above", c); got != limit.GlobalSlots {
		t.Errorf("Acquire above the limit: got %q", got)
	}
	for _, id := range []string{"replicated", "local"} {
		if ok, err := store.Release(t.Context(), id, limit.Final{QuotaPeriod: "total"}); !ok || err != nil {
			t.Errorf("Release %s: got %v, %v", id, ok, err)
		}
	}
	await(t, 2*time.Second, "the promoted server holds nothing", says(watch, "[]", "ZRANGE", "{tollgate}:leases", "0", "-1"))
}
