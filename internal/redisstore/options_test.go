package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

func TestOpenFailsWhereThereIsNoRedis(t *testing.T) {
	silent := startFake(t) // accepts and says nothing: its scripts never answer
	silent.says(func(string) string { return "-LOADING not yet\r\n" })
	refusing := startProxy(t, "127.0.0.1:1")
	for name, o := range map[string]redisstore.Options{
		"no address":        {},
		"nobody listens":    {Addresses: []string{"127.0.0.1:1"}},
		"hangs up":          {Addresses: []string{refusing.lis.Addr().String()}},
		"not ready":         {Addresses: []string{silent.lis.Addr().String()}},
		"no password file":  {Addresses: []string{"127.0.0.1:1"}, PasswordFile: filepath.Join(t.TempDir(), "none")},
		"no sentinel":       {Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}},
		"no named sentinel": {Addresses: []string{"orders@127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			store, err := redisstore.Open(ctx, o)
			if err == nil {
				store.Close()
				t.Error("Open: got no error")
			}
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("Open took %v", took)
			}
		})
	}
}

func TestPasswordIsReadAtEveryConnection(t *testing.T) {
	s := startServer(t)
	p := startProxy(t, s.address)
	admin := s.dial()
	setPassword := func(password string) {
		t.Helper()
		cmd := admin.B().Arbitrary("ACL", "SETUSER", "gate", "reset", "on", "~*", "+@all", ">"+password).Build()
		if err := admin.Do(t.Context(), cmd).Error(); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := redisstore.Options{Addresses: []string{p.lis.Addr().String()}, Username: "gate", PasswordFile: file, DB: 3}
	setPassword("first-secret")
	write("wrong-secret")
	if store, err := redisstore.Open(t.Context(), o); err == nil {
		store.Close()
		t.Fatal("Open with a wrong password: got no error")
	} else if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows the password: %v", err)
	}
	write("first-secret")
	store, err := redisstore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	admit(t, store, "lease", free)

	setPassword("second-secret")
	write("second-secret")
	p.set(0, false, true)
	acquire(t, store, "local", free)
	p.set(0, false, false)
	await(t, 5*time.Second, "rejoined with the new password", func() bool { return !store.Partitioned() })
}

func TestClosedStoreDecidesNothing(t *testing.T) {
	s := startServer(t)
	store := s.open(t)
	admit(t, store, "lease", free)
	for range 2 {
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	ctx := t.Context()
	_, acquireErr := store.Acquire(ctx, limit.Ask{LeaseID: "x", KeyID: "k", Caps: free})
	_, reserveErr := store.Reserve(ctx, "lease", free, limit.Reservation{Tokens: 1})
	_, releaseErr := store.Release(ctx, "lease", limit.Final{})
	_, keyErr := store.Key(ctx, "k", free)
	_, totalsErr := store.Totals(ctx)
	for name, err := range map[string]error{
		"Acquire": acquireErr, "Claim": store.Claim(ctx, "lease"), "Reserve": reserveErr, "Release": releaseErr,
		"Spend": store.Spend(ctx, []limit.Spend{{LeaseID: "lease", Total: 1}}), "Seed": store.Seed(ctx, "k", "total", 1),
		"Restore": store.Restore(ctx, "k", 0, 1, 1), "Key": keyErr, "Totals": totalsErr,
	} {
		if !errors.Is(err, limit.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
	}
}

// BenchmarkDecision is one Acquire and its Release, each one round trip, with a
// window that is in use.
func BenchmarkDecision(b *testing.B) {
	s := startServer(b)
	store := s.open(b)
	c := caps(func(c *limit.Caps) { c.Global, c.Concurrent, c.Requests, c.Tokens = 1<<30, 1<<30, 1<<30, 1<<30 })
	ctx := context.Background()
	run := func(b *testing.B, id string) {
		b.Helper()
		d, err := store.Acquire(ctx, limit.Ask{LeaseID: id, KeyID: "k", Caps: c, Slot: true, Tokens: true})
		if err != nil || d.Denied != limit.Admitted {
			b.Errorf("Acquire: got %q, %v", d.Denied, err)
		}
		if _, err := store.Release(ctx, id, limit.Final{Total: 10, QuotaPeriod: "total"}); err != nil {
			b.Error(err)
		}
	}
	b.Run("one at a time", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			run(b, fmt.Sprint("s", b.N, "-", i))
		}
		b.ReportMetric(2, "roundtrips/op")
	})
	b.Run("many at once", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		n := make(chan int, 1)
		n <- 0
		b.RunParallel(func(pb *testing.PB) {
			w := <-n
			n <- w + 1
			for i := 0; pb.Next(); i++ {
				run(b, fmt.Sprint("p", b.N, "-", w, "-", i))
			}
		})
		b.ReportMetric(2, "roundtrips/op")
	})
	if store.Partitioned() {
		b.Fatal("the store decided locally")
	}
}

// BenchmarkLocalDecision is the same during an outage.
func BenchmarkLocalDecision(b *testing.B) {
	s := startServer(b)
	store := s.open(b)
	s.kill()
	ctx := context.Background()
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprint(i)
		if _, err := store.Acquire(ctx, limit.Ask{LeaseID: id, KeyID: "k", Caps: free, Slot: true}); err != nil {
			b.Fatal(err)
		}
		if _, err := store.Release(ctx, id, limit.Final{Total: 10, QuotaPeriod: "total"}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "roundtrips/op")
}

// BenchmarkSpend is the running use of 256 streams, one script.
func BenchmarkSpend(b *testing.B) {
	s := startServer(b)
	store := s.open(b)
	batch := make([]limit.Spend, 256)
	for i := range batch {
		batch[i] = limit.Spend{LeaseID: fmt.Sprint(i), QuotaPeriod: "total"}
		admit(b, store, batch[i].LeaseID, free)
	}
	for b.Loop() {
		for i := range batch {
			batch[i].Total += 10
		}
		if err := store.Spend(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(1, "roundtrips/op")
}
