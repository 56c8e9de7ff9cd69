package limit_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/limit"
)

var home = netip.MustParseAddr("192.0.2.1")

// passes counts how many of n requests pass at once.
func passes(a *limit.Addresses, addr netip.Addr, n int) (passed int) {
	for range n {
		if ok, _ := a.Allow(addr); ok {
			passed++
		}
	}
	return passed
}

func TestAddressHasItsBurst(t *testing.T) {
	for _, c := range []struct {
		qps   float64
		burst int
		want  int
	}{
		{10, 0, 10},
		{2.5, 0, 3},
		{0.1, 0, 1},
		{0.1, -4, 1},
		{10, 25, 25},
		{0, 5, 0},
		{-1, 5, 0},
		{math.NaN(), 5, 0},
		{math.Inf(1), 7, 100},
		{math.SmallestNonzeroFloat64, 2, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			if got := passes(limit.NewAddresses(c.qps, c.burst, 10), home, 100); c.want != 100 && got != c.want {
				t.Errorf("qps %v, burst %d: got %d at once, want %d", c.qps, c.burst, got, c.want)
			}
		})
	}
}

func TestAddressIsNeverAboveItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const qps, burst = 7.0, 5
		a := limit.NewAddresses(qps, burst, 10)
		random := rand.New(rand.NewPCG(3, 4))
		var admitted []time.Time
		for range 2000 {
			if ok, _ := a.Allow(home); ok {
				admitted = append(admitted, time.Now())
			}
			time.Sleep(time.Duration(random.Int64N(int64(150 * time.Millisecond))))
			if random.IntN(100) == 0 {
				time.Sleep(3 * time.Second)
			}
		}
		for i := range admitted {
			for j := i; j < min(len(admitted), i+100); j++ {
				if most := burst + qps*admitted[j].Sub(admitted[i]).Seconds(); float64(j-i+1) > most+1e-6 {
					t.Fatalf("%d requests within %v, want at most %.2f", j-i+1, admitted[j].Sub(admitted[i]), most)
				}
			}
		}
		if len(admitted) < 1000 {
			t.Errorf("admitted: got %d, want most of what the rate allows", len(admitted))
		}
	})
}

func TestRefusedAddressMayComeBackWhenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limit.NewAddresses(3, 2, 10)
		passes(a, home, 2)
		for range 20 {
			ok, retry := a.Allow(home)
			if ok || retry <= 0 || retry > time.Second/3+time.Nanosecond {
				t.Fatalf("got %v, retry after %v, want refusal for at most 1/3 s", ok, retry)
			}
			time.Sleep(retry - time.Nanosecond)
			if ok, _ := a.Allow(home); ok {
				t.Fatal("passed before it was told to come back")
			}
			time.Sleep(time.Nanosecond)
			if ok, _ := a.Allow(home); !ok {
				t.Fatalf("refused after waiting %v as told", retry)
			}
		}
	})
}

func TestAddressesThatOneClientCanChooseAreOne(t *testing.T) {
	for _, c := range []struct {
		first, second string
		same          bool
	}{
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"fe80::1%eth0", "fe80::2%eth1", true},
		{"::1", "0.0.0.1", false},
	} {
		a := limit.NewAddresses(0.001, 1, 10)
		a.Allow(netip.MustParseAddr(c.first))
		if ok, _ := a.Allow(netip.MustParseAddr(c.second)); ok == c.same {
			t.Errorf("%s and %s: got one client %v, want %v", c.first, c.second, !ok, c.same)
		}
	}
	a := limit.NewAddresses(0.001, 1, 10)
	a.Allow(netip.Addr{})
	if ok, _ := a.Allow(netip.Addr{}); ok {
		t.Error("invalid addresses are not limited")
	}
}

func numbered(i uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 0x0a000000+i)
	return netip.AddrFrom4(b)
}

func TestAddressTableIsBoundedAndForgetsTheQuietest(t *testing.T) {
	const size = 100
	a := limit.NewAddresses(0.001, 1, size)
	a.Allow(home)
	for i := range uint32(10 * size) {
		a.Allow(numbered(i))
		// One that is refused stays known, as long as it keeps asking.
		if i%(size/2) == 0 {
			if ok, _ := a.Allow(home); ok {
				t.Fatalf("a limited address was forgotten after %d others", i)
			}
		}
	}
	if a.Len() != size {
		t.Errorf("remembered: got %d, want %d", a.Len(), size)
	}
	for i := range uint32(size) {
		a.Allow(numbered(1_000_000 + i))
	}
	if ok, _ := a.Allow(home); !ok {
		t.Error("an address that was quiet while the table turned over is still known")
	}
}

func TestAddressIsLimitedUnderConcurrency(t *testing.T) {
	const burst = 50
	a := limit.NewAddresses(0.0001, burst, 10)
	var (
		passed atomic.Int64
		group  sync.WaitGroup
	)
	for range 8 {
		group.Go(func() {
			for range 100 {
				if ok, _ := a.Allow(home); ok {
					passed.Add(1)
				}
			}
		})
	}
	group.Wait()
	if got := passed.Load(); got != burst {
		t.Errorf("passed: got %d, want %d", got, burst)
	}
}

func TestKnownAddressDoesNotAllocate(t *testing.T) {
	a := limit.NewAddresses(1000, 10, 0)
	for _, addr := range []netip.Addr{home, netip.MustParseAddr("2001:db8::1")} {
		a.Allow(addr)
		if n := testing.AllocsPerRun(1000, func() { a.Allow(addr) }); n != 0 {
			t.Errorf("%v: got %v allocations, want 0", addr, n)
		}
	}
}

func BenchmarkAddresses(b *testing.B) {
	b.Run("known", func(b *testing.B) {
		a := limit.NewAddresses(1e9, 0, 0)
		b.ReportAllocs()
		for b.Loop() {
			a.Allow(home)
		}
	})
	b.Run("flood", func(b *testing.B) {
		a := limit.NewAddresses(10, 0, 0)
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			a.Allow(numbered(i))
		}
	})
}
