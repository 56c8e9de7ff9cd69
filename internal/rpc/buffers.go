package rpc

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

// Buffers is the pool of memory for messages. Get does not zero a buffer: callers must
// overwrite every byte that they later read. gRPC's own pools zero the whole buffer
// each time, which costs as much as copying it: noticeable for a prompt of 220 KiB.
var Buffers mem.BufferPool = &buffers{}

// A tier has buffers of one capacity: powers of two and, above 32 KiB, the
// steps halfway, because Envoy's chunks of a fast answer are 64 KiB and a bit.
const (
	smallest  = 11 // 2 KiB: gRPC throws away what is not above 1 KiB
	finer     = 15 // from 32 KiB on there are two tiers for each power
	largest   = 26 // 64 MiB
	tierCount = finer - smallest + 2*(largest-finer) + 1
)

type buffers struct {
	tiers [tierCount]sync.Pool
}

// tierOf is the tier whose buffers have room for n bytes, and their capacity;
// beyond the largest there is none.
func tierOf(n int) (tier, capacity int) {
	if n <= 1<<smallest {
		return 0, 1 << smallest
	}
	power := bits.Len(uint(n - 1)) // the power of two that holds n
	switch {
	case power > largest:
		return tierCount, n
	case power <= finer:
		return power - smallest, 1 << power
	}
	tier, capacity = finer-smallest+2*(power-finer), 1<<power
	if half := capacity/2 + capacity/4; n <= half {
		return tier - 1, half
	}
	return tier, capacity
}

// Get implements [mem.BufferPool].
func (b *buffers) Get(n int) *[]byte {
	tier, capacity := tierOf(n)
	if tier < tierCount {
		if buf, ok := b.tiers[tier].Get().(*[]byte); ok {
			*buf = (*buf)[:n]
			return buf
		}
	}
	buf := make([]byte, n, capacity)
	return &buf
}

// Put implements [mem.BufferPool]. A buffer that did not come from Get is left to the
// garbage collector.
func (b *buffers) Put(buf *[]byte) {
	if tier, capacity := tierOf(cap(*buf)); tier < tierCount && cap(*buf) == capacity {
		b.tiers[tier].Put(buf)
	}
}
