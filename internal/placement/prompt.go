package placement

import (
	"hash/maphash"
	"sync"
)

const (
	// blockBytes is the most text that one block stands for, about 32 tokens.
	// A block ends earlier where a message does, so that the whole past of a
	// conversation is made of whole blocks.
	blockBytes = 128
	// longestPrompt is how many blocks of a prompt are looked at: 1 MiB of text.
	// Two prompts that are equal for so long are kept together anyway.
	longestPrompt = 8192
)

// Prompt is what a prompt looks like from outside: one number for each block of
// it, which stands for all the text up to the end of that block. It keeps no
// text. Write it from its beginning; it is of one goroutine until it is placed.
type Prompt struct {
	blocks []uint64 // hash of everything up to the end of the block
	ends   []uint32 // bytes up to there
	used   []uint32 // when the chosen engine had used the block before this request, of the first matched

	seed  maphash.Seed
	last  uint64
	bytes uint32
	buf   [blockBytes]byte
	n     int // bytes in buf
}

// prompts are reused: the blocks of a long prompt take some memory.
var prompts = sync.Pool{New: func() any { return new(Prompt) }}

// seed makes the hashes unpredictable: nobody can write a prompt that looks like
// somebody else's.
var seed = maphash.MakeSeed()

// NewPrompt returns an empty prompt. Prompts for different spaces have no block in
// common, whatever is in them: a space is what an engine's cache keeps apart, the
// model and, where caches are isolated, the key.
func NewPrompt(space ...string) *Prompt {
	p, ok := prompts.Get().(*Prompt)
	if !ok {
		p = new(Prompt)
	}
	*p = Prompt{blocks: p.blocks[:0], ends: p.ends[:0], used: p.used[:0], seed: seed}
	for _, s := range space {
		p.last = mix(p.last, maphash.String(seed, s))
	}
	return p
}

// Free gives the memory back. The prompt must not be used afterwards; nil is
// nothing to give.
func (p *Prompt) Free() {
	if p != nil {
		prompts.Put(p)
	}
}

// Text appends text.
func (p *Prompt) Text(b []byte) {
	if len(p.blocks) == longestPrompt {
		return
	}
	if p.n > 0 {
		n := copy(p.buf[p.n:], b)
		p.n += n
		b = b[n:]
		if p.n < blockBytes {
			return
		}
		p.block(p.buf[:])
		p.n = 0
	}
	for len(b) >= blockBytes && len(p.blocks) < longestPrompt {
		p.block(b[:blockBytes])
		b = b[blockBytes:]
	}
	if len(b) < blockBytes {
		p.n = copy(p.buf[:], b)
	}
}

// End marks the end of a message: what follows is in a new block.
func (p *Prompt) End() {
	if p.n > 0 && len(p.blocks) < longestPrompt {
		p.block(p.buf[:p.n])
	}
	p.n = 0
}

// Full says that no more of the prompt is looked at.
func (p *Prompt) Full() bool { return len(p.blocks) == longestPrompt }

func (p *Prompt) block(b []byte) {
	p.last = mix(p.last, maphash.Bytes(p.seed, b))
	p.bytes += uint32(len(b)) //nolint:gosec // at most longestPrompt × blockBytes
	p.blocks = append(p.blocks, p.last)
	p.ends = append(p.ends, p.bytes)
}

// mix joins the hash of a block to that of everything before it.
func mix(before, block uint64) uint64 {
	const odd = 0x9e3779b97f4a7c15
	h := (before ^ block) * odd
	return (h ^ h>>32) * odd
}

// Blocks is how many blocks there are.
func (p *Prompt) Blocks() int {
	if p == nil {
		return 0
	}
	return len(p.blocks)
}

// share is the part of the prompt that its first n blocks are.
func (p *Prompt) share(n int) float64 {
	if n == 0 {
		return 0
	}
	return float64(p.ends[n-1]) / float64(p.bytes)
}

// upTo is how many whole blocks the first part of the prompt has.
func (p *Prompt) upTo(part float64) int {
	end := uint32(min(max(part, 0), 1) * float64(p.bytes))
	low, high := 0, len(p.ends)
	for low < high {
		if mid := (low + high) / 2; p.ends[mid] <= end {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}
