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
		m := &model{T: t, c: newCache(rapid.IntRange(leastBlocks, leastBlocks+200).Draw(t, "most"))}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			m.step()
			m.compare()
		}
	})
}

// model is a cache and the plain list that it should be.
type model struct {
	*rapid.T
	c    *cache
	list []uint64 // the newest first
	// expected are prompts that were added and may still be withdrawn: nothing was
	// dropped since.
	expected [][]uint64
}

func (m *model) use(hashes []uint64) {
	for _, h := range slices.Backward(hashes) {
		if i := slices.Index(m.list, h); i >= 0 {
			m.list = slices.Delete(m.list, i, i+1)
		}
		m.list = slices.Insert(m.list, 0, h)
	}
	if len(m.list) > m.c.most {
		m.list, m.expected = m.list[:m.c.most], nil
	}
}

// step does something with a prompt. A few numbers and a long tail make prompts
// share much, and fill the cache.
func (m *model) step() {
	path := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 4).Draw(m.T, "path")
	for i := range rapid.IntRange(0, 120).Draw(m.T, "tail") {
		path = append(path, i)
	}
	hashes := chain(path...)
	matched := m.c.match(hashes, 0)
	for i, h := range hashes {
		if slices.Contains(m.list, h) != (i < matched) {
			m.Fatalf("block %d of %d: matched %d, in the list %v", i, len(hashes), matched, slices.Contains(m.list, h))
		}
	}
	switch rapid.IntRange(0, 6).Draw(m.T, "do") {
	case 0:
		m.use(hashes[:matched])
		if got := m.c.touch(hashes[:matched], nil); len(got) != matched {
			m.Fatalf("%d moments of %d blocks", len(got), matched)
		}
	case 1:
		if matched > 0 {
			m.miss(hashes[matched-1])
		}
	case 2:
		m.c.kept()
	case 3:
		if n := len(m.expected); n > 0 {
			i := rapid.IntRange(0, n-1).Draw(m.T, "which")
			if rapid.Bool().Draw(m.T, "answered") {
				m.c.confirm(m.expected[i])
				if got := m.c.match(m.expected[i], answered); got != len(m.expected[i]) {
					m.Fatalf("%d of %d blocks are sure after an answer", got, len(m.expected[i]))
				}
			} else {
				m.withdraw(m.expected[i])
			}
			m.expected = slices.Delete(m.expected, i, i+1)
		}
	default:
		m.c.add(hashes)
		m.expected = append(m.expected, hashes)
		m.use(hashes)
	}
}

// withdraw is the word that an engine never had a prompt: what only that prompt has had
// is gone.
func (m *model) withdraw(hashes []uint64) {
	for _, h := range hashes {
		if _, at := m.c.find(h); m.c.blocks[at-1].prompts == 1 { // and none was answered
			i := slices.Index(m.list, h)
			m.list = slices.Delete(m.list, i, i+1)
		}
	}
	m.c.withdraw(hashes)
}

// miss is the word of the engine that a block was not there.
func (m *model) miss(hash uint64) {
	_, at := m.c.find(hash)
	moment := m.c.blocks[at-1].used
	keep := slices.IndexFunc(m.list, func(h uint64) bool {
		_, i := m.c.find(h)
		return int32(m.c.blocks[i-1].used-moment) <= 0
	})
	m.c.missed(moment)
	m.list, m.expected = m.list[:keep], nil
}

func (m *model) compare() {
	if m.c.count != len(m.list) || m.c.count > m.c.most || m.c.most > m.c.ceiling {
		m.Fatalf("it has %d blocks of at most %d, ceiling %d; the list has %d", m.c.count, m.c.most, m.c.ceiling, len(m.list))
	}
	at := m.c.newest
	for i, h := range m.list {
		if at == 0 || m.c.blocks[at-1].hash != h || m.c.match([]uint64{h}, 0) != 1 {
			m.Fatalf("place %d: another block than in the list", i)
		}
		at = m.c.blocks[at-1].older
	}
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
