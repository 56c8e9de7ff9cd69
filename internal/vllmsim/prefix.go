package vllmsim

import (
	"encoding/binary"
	"hash/fnv"
	"slices"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// prefixCache is what a vLLM remembers of prompts: blocks of tokens, each known
// together with all that came before it. The blocks that were used longest ago go
// first. The caller holds the lock of the simulator.
type prefixCache struct {
	size   int // tokens of a block
	blocks *simplelru.LRU[uint64, struct{}]
}

func newPrefixCache(size, blocks int) *prefixCache {
	lru, err := simplelru.NewLRU[uint64, struct{}](blocks, nil)
	if err != nil {
		panic(err) // blocks is positive
	}
	return &prefixCache{size: size, blocks: lru}
}

// look finds how many of the first blocks of a prompt are there, in tokens, and puts
// all of them in. The last token of a prompt is never cached: an engine needs one to
// begin with.
func (c *prefixCache) look(space uint64, ids []int64) (cached, created int) {
	h := fnv.New64a()
	var word [8]byte
	write := func(v uint64) {
		binary.LittleEndian.PutUint64(word[:], v)
		_, _ = h.Write(word[:]) // never fails
	}
	write(space)
	var chain []uint64
	for i := 0; i+c.size < len(ids); i += c.size {
		for _, id := range ids[i : i+c.size] {
			write(uint64(id)) //nolint:gosec // the bits alone
		}
		chain = append(chain, h.Sum64())
	}
	known := 0
	for known < len(chain) && c.blocks.Contains(chain[known]) {
		known++
	}
	for _, block := range slices.Backward(chain) { // the beginning is used last, and so stays longest
		c.blocks.Add(block, struct{}{})
	}
	return known * c.size, (len(chain) - known) * c.size
}

// tokenized are the ids of a prompt.
func (q *prompt) tokenized() []int64 {
	switch {
	case q.ids != nil:
		return q.ids
	case q.messages != nil:
		return templatedIDs(q.messages)
	}
	return tokenIDs(q.text)
}

// cache looks the first prompt up in the prefix cache, and puts it there.
func (x *exchange) cache(p *plan) {
	q := p.prompts[0]
	salt, _ := x.f.text("cache_salt")
	ids := q.tokenized()
	s := x.sim
	s.mu.Lock()
	p.cached, p.created = s.prefixes.look(hash64(x.model, salt), ids)
	s.mu.Unlock()
	if x.script.CachedTokens != nil {
		p.cached = *x.script.CachedTokens
	}
	x.tally.do(func(t *tally) {
		t.cachedTokens += int64(p.cached)
		t.cacheQueries += int64(q.tokens)
	})
}
