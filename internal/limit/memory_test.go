package limit_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"tollgate/internal/limit"
	"tollgate/internal/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var free = limit.Caps{
	Global: limit.Unlimited, Concurrent: limit.Unlimited, Requests: limit.Unlimited,
	Tokens: limit.Unlimited, Quota: limit.Unlimited, QuotaPeriod: "total",
}

func openMemory(t *testing.T) limit.Store { t.Helper(); return newMemory(t) }

func newMemory(t *testing.T, opts ...limit.MemoryOption) *limit.Memory {
	t.Helper()
	m := limit.NewMemory(opts...)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return m
}

func mustAcquire(t *testing.T, m *limit.Memory, id, key string) {
	t.Helper()
	d, err := m.Acquire(t.Context(), limit.Ask{LeaseID: id, KeyID: key, Caps: free, Slot: true, Tokens: true})
	if err != nil || d.Denied != limit.Admitted {
		t.Fatalf("Acquire: got %q, %v, want admission", d.Denied, err)
	}
}

func mustRelease(t *testing.T, m *limit.Memory, id string, total int64) {
	t.Helper()
	ok, err := m.Release(t.Context(), id, limit.Final{Total: total, QuotaPeriod: "total"})
	if err != nil || !ok {
		t.Fatalf("Release: got %v, %v, want true", ok, err)
	}
}

func TestMemoryKeepsTheRules(t *testing.T) {
	storetest.Limits(t, openMemory, time.Sleep, synctest.Test)
}

func TestUnclaimedLeasesAreReportedWithoutACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu   sync.Mutex
			gone []string
			m    *limit.Memory
		)
		m = newMemory(t, limit.OnExpire(func(id string) {
			// Outside the store's lock: the hook may ask the store.
			if ok, err := m.Release(t.Context(), id, limit.Final{}); ok || err != nil {
				t.Errorf("Release of an expired lease: got %v, %v, want false", ok, err)
			}
			mu.Lock()
			defer mu.Unlock()
			gone = append(gone, id)
		}))
		for i := range 4 {
			mustAcquire(t, m, fmt.Sprint("lease-", i), "k")
			time.Sleep(time.Second)
		}
		if err := m.Claim(t.Context(), "lease-1"); err != nil {
			t.Fatalf("Claim: %v", err)
		}
		mustRelease(t, m, "lease-2", 0)
		time.Sleep(4*time.Second - time.Nanosecond)
		synctest.Wait()
		mu.Lock()
		if diff := cmp.Diff([]string{"lease-0"}, gone); diff != "" {
			t.Errorf("expired after 8 s less 1 ns (-want +got):\n%s", diff)
		}
		mu.Unlock()
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff([]string{"lease-0", "lease-3"}, gone); diff != "" {
			t.Errorf("expired after 8 s (-want +got):\n%s", diff)
		}
	})
}

func TestExpiryIsNoticedByACallAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone []string
		m := newMemory(t, limit.OnExpire(func(id string) { gone = append(gone, id) }))
		mustAcquire(t, m, "lease", "k")
		if err := m.Close(); err != nil { // no timer from here on
			t.Fatalf("Close: %v", err)
		}
		time.Sleep(limit.ProvisionalLife)
		got, err := m.Totals(t.Context())
		if err != nil {
			t.Fatalf("Totals: %v", err)
		}
		if diff := cmp.Diff(limit.Totals{Expired: 1}, got); diff != "" {
			t.Errorf("totals (-want +got):\n%s", diff)
		}
		if !slices.Equal(gone, []string{"lease"}) {
			t.Errorf("reported: got %v, want [lease]", gone)
		}
	})
}

func TestIdleKeysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const aSecond, seconds = 500, 200
		m := newMemory(t)
		if err := m.Seed(t.Context(), "key-0-0", "total", 40); err != nil {
			t.Fatalf("Seed: %v", err)
		}
		for s := range seconds {
			for k := range aSecond {
				id := fmt.Sprint("lease-", k)
				mustAcquire(t, m, id, fmt.Sprintf("key-%d-%d", s, k))
				mustRelease(t, m, id, 2)
			}
			if accounts, _ := m.Held(); accounts > 62*aSecond {
				t.Fatalf("accounts after %d s: got %d, want at most %d", s, accounts, 62*aSecond)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute) // nobody calls: the timer does it
		if accounts, resting := m.Held(); accounts != 0 || resting != 1 {
			t.Errorf("held when idle: got %d accounts and %d quota books, want 0 and 1", accounts, resting)
		}
		v, err := m.Key(t.Context(), "key-0-0", free)
		if err != nil || v.QuotaUsed != 42 {
			t.Errorf("quota of a forgotten key: got %d, %v, want 42", v.QuotaUsed, err)
		}
		caps := free
		caps.Quota = 42
		d, err := m.Acquire(t.Context(), limit.Ask{LeaseID: "x", KeyID: "key-0-0", Caps: caps, Tokens: true})
		if err != nil || d.Denied != limit.Quota {
			t.Errorf("Acquire: got %q, %v, want refusal by quota", d.Denied, err)
		}
	})
}

func TestQuotaBooksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		const keys = limit.QuotasKept + 100
		for k := range keys {
			if err := m.Seed(t.Context(), fmt.Sprint("key-", k), "total", 1); err != nil {
				t.Fatalf("Seed: %v", err)
			}
			if k%1000 == 0 {
				time.Sleep(2 * time.Second)
			}
		}
		time.Sleep(3 * time.Minute)
		if accounts, resting := m.Held(); accounts != 0 || resting != limit.QuotasKept {
			t.Errorf("held: got %d accounts and %d quota books, want 0 and %d", accounts, resting, limit.QuotasKept)
		}
		caps := free
		caps.Quota = 10
		_, err := m.Acquire(t.Context(), limit.Ask{LeaseID: "x", KeyID: "key-0", Caps: caps, Tokens: true})
		if !errors.Is(err, limit.ErrUnseeded) {
			t.Errorf("Acquire for the book that was lost: got %v, want ErrUnseeded", err)
		}
	})
}

func TestClosedStoreAdmitsNothingAndStillSettles(t *testing.T) {
	m := limit.NewMemory()
	mustAcquire(t, m, "claimed", "k")
	mustAcquire(t, m, "waiting", "k")
	if err := m.Claim(t.Context(), "claimed"); err != nil {
		t.Fatalf("Claim: %v", err)
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	_, acquire := m.Acquire(t.Context(), limit.Ask{LeaseID: "late", KeyID: "k", Caps: free})
	_, reserve := m.Reserve(t.Context(), "claimed", free, limit.Reservation{Tokens: 1})
	for call, err := range map[string]error{
		"Acquire": acquire, "Reserve": reserve,
		"Claim": m.Claim(t.Context(), "waiting"), "Seed": m.Seed(t.Context(), "k", "total", 1),
	} {
		if !errors.Is(err, limit.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", call, err)
		}
	}
	mustRelease(t, m, "claimed", 5)
	mustRelease(t, m, "waiting", 0)
}

// The wall clock can be set at any time; only a monotonic reading is safe from
// it, and time.Since uses one when its argument carries it.
func TestInstantsCountFromAMonotonicReading(t *testing.T) {
	for name, clock := range map[string]time.Time{
		"store":     newMemory(t).Clock(),
		"addresses": limit.NewAddresses(1, 1, 1).Clock(),
	} {
		if !strings.Contains(clock.String(), " m=") {
			t.Errorf("%s: %v has no monotonic reading", name, clock)
		}
	}
}

func TestNothingIsLeftAfterManyClients(t *testing.T) {
	m := newMemory(t)
	var group sync.WaitGroup
	for client := range 8 {
		group.Go(func() {
			for i := range 500 {
				id := fmt.Sprintf("lease-%d-%d", client, i)
				mustAcquire(t, m, id, fmt.Sprint("key-", i%3))
				if err := m.Claim(t.Context(), id); err != nil {
					t.Errorf("Claim: %v", err)
				}
				if _, err := m.Reserve(t.Context(), id, free, limit.Reservation{Tokens: 10}); err != nil {
					t.Errorf("Reserve: %v", err)
				}
				if err := m.Spend(t.Context(), []limit.Spend{{LeaseID: id, Total: 4, QuotaPeriod: "total"}}); err != nil {
					t.Errorf("Spend: %v", err)
				}
				mustRelease(t, m, id, 6)
			}
		})
	}
	group.Wait()
	got, err := m.Totals(t.Context())
	if err != nil {
		t.Fatalf("Totals: %v", err)
	}
	if diff := cmp.Diff(limit.Totals{}, got); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	var tokens int64
	for k := range 3 {
		v, err := m.Key(t.Context(), fmt.Sprint("key-", k), free)
		if err != nil {
			t.Fatalf("Key: %v", err)
		}
		tokens += v.TokensWindow
	}
	if tokens != 8*500*6 {
		t.Errorf("tokens: got %d, want %d", tokens, 8*500*6)
	}
}

// caps as a busy gateway has them.
var busy = limit.Caps{
	Global: 1 << 20, Concurrent: 1 << 20, Requests: 1 << 40, Tokens: 1 << 40, Quota: 1 << 50, QuotaPeriod: "total",
}

func benchmarkStore(b *testing.B, keys int) (*limit.Memory, []string) {
	b.Helper()
	m := limit.NewMemory()
	b.Cleanup(func() { _ = m.Close() })
	ids := make([]string, keys)
	for i := range ids {
		ids[i] = fmt.Sprint("key-", i)
		if err := m.Seed(b.Context(), ids[i], "total", 0); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	return m, ids
}

// cycle is all that one request asks of the store.
func cycle(ctx context.Context, m *limit.Memory, id, key string) error {
	d, err := m.Acquire(ctx, limit.Ask{LeaseID: id, KeyID: key, Caps: busy, Slot: true, Tokens: true})
	if err != nil || d.Denied != limit.Admitted {
		return fmt.Errorf("acquire: denied by %q: %w", d.Denied, err)
	}
	if err := m.Claim(ctx, id); err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	if d, err := m.Reserve(ctx, id, busy, limit.Reservation{Tokens: 300}); err != nil || d.Denied != limit.Admitted {
		return fmt.Errorf("reserve: denied by %q: %w", d.Denied, err)
	}
	if ok, err := m.Release(ctx, id, limit.Final{Total: 250, QuotaPeriod: "total"}); err != nil || !ok {
		return fmt.Errorf("release: %v: %w", ok, err)
	}
	return nil
}

func BenchmarkRequest(b *testing.B) {
	for _, keys := range []int{1, 10_000} {
		b.Run(fmt.Sprint("keys=", keys), func(b *testing.B) {
			m, ids := benchmarkStore(b, keys)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := cycle(b.Context(), m, "lease", ids[i%keys]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		m, ids := benchmarkStore(b, 1000)
		var clients atomic.Int64
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			id := fmt.Sprint("lease-", clients.Add(1))
			for i := 0; pb.Next(); i++ {
				if err := cycle(b.Context(), m, id, ids[i%len(ids)]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkRefusal(b *testing.B) {
	m, ids := benchmarkStore(b, 1)
	caps := busy
	caps.Requests = 1
	if err := cycle(b.Context(), m, "lease", ids[0]); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := m.Acquire(b.Context(), limit.Ask{LeaseID: "x", KeyID: ids[0], Caps: caps, Slot: true, Tokens: true})
		if err != nil || d.Denied != limit.Requests {
			b.Fatalf("Acquire: %q, %v", d.Denied, err)
		}
	}
}

func BenchmarkSpend2048Streams(b *testing.B) {
	m, ids := benchmarkStore(b, 100)
	batch := make([]limit.Spend, 2048)
	for i := range batch {
		id := fmt.Sprint("lease-", i)
		if _, err := m.Acquire(b.Context(), limit.Ask{LeaseID: id, KeyID: ids[i%100], Caps: busy, Slot: true}); err != nil {
			b.Fatal(err)
		}
		if err := m.Claim(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		batch[i] = limit.Spend{LeaseID: id, QuotaPeriod: "total"}
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch {
			batch[i].Total += 8
		}
		if err := m.Spend(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}
