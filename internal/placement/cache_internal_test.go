package placement

import (
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// chain is a prompt of some blocks: prompts of one tree share their beginnings.
func chain(path ...int) []uint64 {
	var h uint64
	out := make([]uint64, len(path))
	for i, n := range path {
		h = mix(h, uint64(n)+1)
		out[i] = h
	}
	return out
}

// TestTheCacheIsAListInOrderOfUse compares it with a plain list, through many
// uses, corrections and changes of its size.
func TestTheCacheIsAListInOrderOfUse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(leastBlocks, leastBlocks+200).Draw(t, "most")
		c := newCache(most)
		var list []uint64 // the newest first
		use := func(hashes []uint64) {
			for _, h := range slices.Backward(hashes) {
				if i := slices.Index(list, h); i >= 0 {
					list = slices.Delete(list, i, i+1)
				}
				list = slices.Insert(list, 0, h)
			}
			list = list[:min(len(list), c.most)]
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			// A few numbers, and long tails, so that prompts share much and the cache fills.
			path := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 4).Draw(t, "path")
			tail := rapid.IntRange(0, 120).Draw(t, "tail")
			for i := range tail {
				path = append(path, i)
			}
			hashes := chain(path...)
			matched := c.match(hashes)
			for i, h := range hashes {
				if slices.Contains(list, h) != (i < matched) {
					t.Fatalf("block %d of %d: matched %d, in the list %v", i, len(hashes), matched, slices.Contains(list, h))
				}
			}
			switch rapid.IntRange(0, 5).Draw(t, "do") {
			case 0:
				use(hashes[:matched])
				if got := c.touch(hashes[:matched], nil); len(got) != matched {
					t.Fatalf("%d moments of %d blocks", len(got), matched)
				}
			case 1:
				if matched == 0 {
					continue
				}
				_, at := c.find(hashes[matched-1])
				keep := slices.IndexFunc(list, func(h uint64) bool {
					_, i := c.find(h)
					return int32(c.blocks[i-1].used-c.blocks[at-1].used) <= 0
				})
				c.missed(c.blocks[at-1].used)
				list = list[:keep]
			case 2:
				c.kept()
			default:
				c.add(hashes)
				use(hashes)
			}
			if c.count != len(list) || c.count > c.most || c.most > c.ceiling {
				t.Fatalf("it has %d blocks of at most %d, ceiling %d; the list has %d", c.count, c.most, c.ceiling, len(list))
			}
			at := c.newest
			for i, h := range list {
				if at == 0 || c.blocks[at-1].hash != h || !c.has(h) {
					t.Fatalf("place %d: another block than in the list", i)
				}
				at = c.blocks[at-1].older
			}
		}
	})
}

// TestAMillionBlocks: their memory, and that a full cache stays at its size.
func TestAMillionBlocks(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	p := New(Options{Policy: Prefix})
	names := []string{"a", "b", "c", "d"}
	for _, n := range names {
		p.at(n)
	}
	hashes := make([]uint64, 1000)
	next := uint64(1)
	for range 3 * mostBlocks / len(hashes) / len(names) {
		for _, n := range names {
			for i := range hashes {
				next++
				hashes[i] = mix(next, 7)
			}
			p.engines[n].cache.add(hashes)
		}
	}
	total := 0
	for _, n := range names {
		total += p.engines[n].cache.count
	}
	if total < 1_000_000 || total > mostBlocks {
		t.Fatalf("%d blocks", total)
	}
	if used := int64(heap()) - int64(before); used > 64<<20 {
		t.Errorf("%d blocks take %d MiB, want at most 64", total, used>>20)
	} else {
		t.Logf("%d blocks take %.1f MiB", total, float64(used)/(1<<20))
	}
	runtime.KeepAlive(p)
}
