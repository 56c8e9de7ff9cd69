package placement

import "slices"

// cache is what an engine's prefix cache is believed to hold: blocks in the order
// of their last use, the oldest first to go, as in the engine itself. It is not
// safe for concurrent use.
//
// All blocks of a prompt are used at once, and the last block counts as the oldest
// of them: so whenever a block is here, all blocks before it in its prompt are.
//
// A block costs 24 bytes and its part of the table, 8 to 16 more.
type cache struct {
	most    int      // blocks that it may hold now
	table   []uint32 // open addressing: the index of a block, plus 1; 0 is free
	blocks  []block
	free    uint32 // first of the blocks that are not in use, plus 1, linked by older
	count   int
	newest  uint32 // plus 1; 0 is none
	oldest  uint32
	moment  uint32 // counts the uses; it may wrap around
	ceiling int    // most may grow up to here
}

type block struct {
	hash         uint64
	newer, older uint32 // plus 1; older also links the free ones
	used         uint32 // moment of the last use
	// prompts is how many prompts have had it. The bit answered says that one of them was
	// answered; without it the block is only expected.
	prompts uint32
}

const answered = 1 << 31

const (
	leastBlocks = 1 << 10
	firstTable  = 1 << 11
)

func newCache(ceiling int) *cache {
	return &cache{most: ceiling, ceiling: ceiling, table: make([]uint32, firstTable)}
}

// find returns the slot of a hash in the table, or the free slot where it belongs.
func (c *cache) find(hash uint64) (slot int, index uint32) {
	mask := len(c.table) - 1
	for slot = int(hash) & mask; c.table[slot] != 0; slot = (slot + 1) & mask { //nolint:gosec // wraps around, as it should
		if i := c.table[slot]; c.blocks[i-1].hash == hash {
			return slot, i
		}
	}
	return slot, 0
}

// known is how many of a prompt's first blocks count as being here, how many of them
// are sure, and whether the last one is of one conversation: few prompts have had it.
//
// What is only expected counts for such a prompt alone. What many send at once must
// begin at several engines, or the first would have all of them.
func (c *cache) known(hashes []uint64) (n, sure int, private bool) {
	n = c.match(hashes, 0)
	if n == 0 {
		return 0, 0, false
	}
	sure = c.match(hashes[:n], answered)
	const few = 2 // the one before this, and perhaps the same once more
	_, at := c.find(hashes[n-1])
	if private = at != 0 && c.blocks[at-1].prompts&^answered <= few; private {
		return n, sure, true
	}
	return sure, sure, false
}

// match is how many of a prompt's first blocks are here and have a bit.
func (c *cache) match(hashes []uint64, bit uint32) int {
	has := func(hash uint64) bool {
		_, at := c.find(hash)
		return at != 0 && c.blocks[at-1].prompts&bit == bit
	}
	if len(hashes) == 0 || c.count == 0 || !has(hashes[0]) {
		return 0
	}
	low, high := 1, len(hashes) // low are here; whether more are is open up to high
	for low < high {
		if mid := (low + high + 1) / 2; has(hashes[mid-1]) {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}

// touch marks the first n blocks of a prompt, which are here, as used now. It
// appends when each was used before.
func (c *cache) touch(hashes []uint64, before []uint32) []uint32 {
	c.moment++
	n := len(before)
	before = append(before, make([]uint32, len(hashes))...)
	for i, hash := range slices.Backward(hashes) {
		_, at := c.find(hash)
		if at == 0 {
			before[n+i] = c.moment
			continue
		}
		b := &c.blocks[at-1]
		before[n+i] = b.used
		b.used = c.moment
		c.unlink(at)
		c.link(at)
	}
	return before
}

// add puts a prompt's blocks here, or marks them as used now. They are expected until
// [cache.confirm].
func (c *cache) add(hashes []uint64) {
	if len(hashes) > c.most {
		hashes = hashes[:c.most]
	}
	c.moment++
	for _, hash := range slices.Backward(hashes) {
		slot, at := c.find(hash)
		if at != 0 {
			c.unlink(at)
		} else {
			at = c.take(slot, hash)
		}
		c.blocks[at-1].used = c.moment
		c.blocks[at-1].prompts++
		c.link(at)
	}
	c.shrink()
}

// confirm says that a prompt that was added is answered: the engine has its blocks.
func (c *cache) confirm(hashes []uint64) {
	for _, hash := range slices.Backward(hashes) {
		_, at := c.find(hash)
		switch {
		case at == 0:
		case c.blocks[at-1].prompts&answered != 0:
			return // and so are all before it
		default:
			c.blocks[at-1].prompts |= answered
		}
	}
}

// withdraw undoes an add: the engine never had that prompt. Blocks stay that another
// prompt has had, too. A block that was dropped meanwhile and has come again with another
// prompt is lost to that one, which costs a match and nothing else.
func (c *cache) withdraw(hashes []uint64) {
	for _, hash := range slices.Backward(hashes) {
		_, at := c.find(hash)
		switch {
		case at == 0 || c.blocks[at-1].prompts == answered:
		case c.blocks[at-1].prompts > 1:
			c.blocks[at-1].prompts--
		default:
			c.remove(at)
		}
	}
}

// take makes a block for a hash that has none; slot is where it belongs.
func (c *cache) take(slot int, hash uint64) uint32 {
	if 2*(c.count+1) > len(c.table) {
		c.grow()
		slot, _ = c.find(hash)
	}
	at := c.free
	if at != 0 {
		c.free = c.blocks[at-1].older
	} else {
		c.blocks = append(c.blocks, block{})
		at = uint32(len(c.blocks)) //nolint:gosec // at most ceiling + longestPrompt
	}
	c.blocks[at-1] = block{hash: hash}
	c.table[slot] = at
	c.count++
	return at
}

func (c *cache) grow() {
	old := c.table
	c.table = make([]uint32, 2*len(old))
	for _, at := range old {
		if at != 0 {
			slot, _ := c.find(c.blocks[at-1].hash)
			c.table[slot] = at
		}
	}
}

func (c *cache) link(at uint32) {
	b := &c.blocks[at-1]
	b.newer, b.older = 0, c.newest
	if c.newest != 0 {
		c.blocks[c.newest-1].newer = at
	} else {
		c.oldest = at
	}
	c.newest = at
}

func (c *cache) unlink(at uint32) {
	b := c.blocks[at-1]
	if b.newer != 0 {
		c.blocks[b.newer-1].older = b.older
	} else {
		c.newest = b.older
	}
	if b.older != 0 {
		c.blocks[b.older-1].newer = b.newer
	} else {
		c.oldest = b.newer
	}
}

// shrink drops the oldest blocks above what the cache may hold.
func (c *cache) shrink() {
	for c.count > c.most {
		c.drop()
	}
}

// drop removes the oldest block.
func (c *cache) drop() { c.remove(c.oldest) }

func (c *cache) remove(at uint32) {
	c.unlink(at)
	slot, _ := c.find(c.blocks[at-1].hash)
	c.blocks[at-1] = block{older: c.free}
	c.free = at
	c.count--
	// What was pushed past the freed slot moves back, so that no search stops early.
	mask := len(c.table) - 1
	for next := (slot + 1) & mask; c.table[next] != 0; next = (next + 1) & mask {
		home := int(c.blocks[c.table[next]-1].hash) & mask //nolint:gosec // wraps around, as it should
		if (next-home)&mask >= (next-slot)&mask {
			c.table[slot] = c.table[next]
			slot = next
		}
	}
	c.table[slot] = 0
}

// limit changes how many blocks the cache may ever hold.
func (c *cache) limit(ceiling int) {
	if c.most == c.ceiling || c.most > ceiling {
		c.most = ceiling
	}
	c.ceiling = ceiling
	c.shrink()
}

// missed says that the engine no longer had a block that was last used at a
// moment: then it has nothing that is older either, and holds less than was
// believed.
func (c *cache) missed(moment uint32) {
	for c.oldest != 0 && int32(c.blocks[c.oldest-1].used-moment) <= 0 { //nolint:gosec // the distance on a circle
		c.drop()
	}
	c.most = min(c.most, max(leastBlocks, c.count+c.count/8))
}

// kept says that the engine had all that was believed: it may hold more.
func (c *cache) kept() {
	if c.most < c.ceiling && c.count >= c.most-c.most/16 {
		c.most = min(c.ceiling, c.most+c.most/32)
	}
}
