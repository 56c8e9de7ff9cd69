package rpc

import (
	"testing"

	"pgregory.net/rapid"
)

func TestABufferHasRoomAndLittleMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 100<<20).Draw(t, "n")
		tier, capacity := tierOf(n)
		switch {
		case capacity < n:
			t.Fatalf("%d bytes of room for %d", capacity, n)
		case tier > tierCount, tier == tierCount && n <= 1<<largest:
			t.Fatalf("%d bytes in tier %d", n, tier)
		case n > 1<<finer && capacity >= n+n/2:
			t.Fatalf("%d bytes of room for %d", capacity, n)
		}
		if again, same := tierOf(capacity); again != tier || same != capacity {
			t.Fatalf("a buffer of %d bytes is of tier %d (%d bytes) when it is taken, of %d (%d bytes) when it comes back",
				n, tier, capacity, again, same)
		}
	})
}

// TestTiersAtTheirBounds: at a power of two, and halfway to the next, one byte
// more is another tier, and one byte less is not.
func TestTiersAtTheirBounds(t *testing.T) {
	var bounds []int
	for power := smallest; power <= largest; power++ {
		if power > finer {
			bounds = append(bounds, 3<<(power-2))
		}
		bounds = append(bounds, 1<<power)
	}
	if len(bounds) != tierCount {
		t.Fatalf("%d bounds for %d tiers", len(bounds), tierCount)
	}
	for tier, bound := range bounds {
		for _, c := range []struct{ n, tier int }{{bound - 1, tier}, {bound, tier}, {bound + 1, tier + 1}} {
			got, capacity := tierOf(c.n)
			want := c.n // beyond the largest
			if c.tier < tierCount {
				want = bounds[c.tier]
			}
			if got != c.tier || capacity != want {
				t.Errorf("%d bytes: tier %d of %d bytes, want %d of %d", c.n, got, capacity, c.tier, want)
			}
		}
	}
}

func TestABufferIsWhatWasAskedFor(t *testing.T) {
	b := new(buffers)
	strange := make([]byte, 3000)
	b.Put(&strange) // not of Get
	for range 3 {
		for _, n := range []int{0, 1, 2048, 2049, 65600, 1 << 26, 1<<26 + 1} {
			buf := b.Get(n)
			if _, capacity := tierOf(n); len(*buf) != n || cap(*buf) != capacity {
				t.Errorf("asked for %d bytes: %d of %d", n, len(*buf), cap(*buf))
			}
			*buf = (*buf)[:n/2] // a prefix may come back
			b.Put(buf)
		}
	}
}

func TestABufferIsUsedAgain(t *testing.T) {
	b := new(buffers)
	if allocs := testing.AllocsPerRun(1000, func() { b.Put(b.Get(225 << 10)) }); allocs > 0.9 {
		t.Errorf("%.1f allocations for a buffer that came back", allocs)
	}
}
