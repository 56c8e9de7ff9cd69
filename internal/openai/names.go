package openai

import (
	"bytes"
	"hash/maphash"
)

const (
	// maxNames bounds the names of all objects that are open at once, and with
	// it the memory of one parse (about 25 MB at the worst). It leaves room for
	// a logit_bias over a whole vocabulary.
	maxNames = 1 << 18
	// fewNames is how many names an object may have before it gets a table.
	fewNames = 8
)

// nameResult is the result of adding a name.
type nameResult uint8

const (
	nameNew nameResult = iota
	nameTwice
	nameTooMany
)

// nameSeed makes the hashes unpredictable: a client cannot choose names that
// collide.
var nameSeed = maphash.MakeSeed()

type name struct {
	key  []byte // decoded
	hash uint64 // set once the object has a table
}

// names holds the names of all open objects, the innermost last. The names of a small
// object are compared one by one. A larger object has an open-addressing table; each
// depth keeps the memory of its table for the next object.
type names struct {
	live   []name
	tables [maxDepth + 1][]uint32 // index into live, plus 1; 0 is free
}

func (n *names) len() int { return len(n.live) }

// drop forgets the names from base on: their object is closed.
func (n *names) drop(base int) { n.live = n.live[:base] }

// add puts a name into the object at depth whose names begin at base.
func (n *names) add(base, depth int, key []byte) nameResult {
	count := len(n.live) - base
	if len(n.live) == maxNames {
		return nameTooMany
	}
	if count < fewNames {
		for _, other := range n.live[base:] {
			if bytes.Equal(other.key, key) {
				return nameTwice
			}
		}
		n.live = append(n.live, name{key: key})
		return nameNew
	}
	switch {
	case count == fewNames:
		for i := base; i < len(n.live); i++ {
			n.live[i].hash = maphash.Bytes(nameSeed, n.live[i].key)
		}
		n.build(base, depth, 4*fewNames)
	case 2*count >= len(n.tables[depth]):
		n.build(base, depth, 4*len(n.tables[depth]))
	}
	hash := maphash.Bytes(nameSeed, key)
	slot, twice := n.find(depth, hash, key)
	if twice {
		return nameTwice
	}
	n.live = append(n.live, name{key: key, hash: hash})
	n.tables[depth][slot] = uint32(len(n.live)) //nolint:gosec // at most maxNames
	return nameNew
}

// build makes the table of an object anew, with size slots (a power of two).
func (n *names) build(base, depth, size int) {
	t := n.tables[depth]
	if cap(t) >= size {
		t = t[:size]
		clear(t)
	} else {
		t = make([]uint32, size)
	}
	n.tables[depth] = t
	for i := base; i < len(n.live); i++ {
		slot, _ := n.find(depth, n.live[i].hash, nil)
		t[slot] = uint32(i) + 1 //nolint:gosec // at most maxNames
	}
}

// find returns the slot of a key, or the free slot for it. A nil key equals no other
// key.
func (n *names) find(depth int, hash uint64, key []byte) (slot uint64, twice bool) {
	t := n.tables[depth]
	mask := uint64(len(t) - 1) //nolint:gosec // a table is never empty
	for slot = hash & mask; t[slot] != 0; slot = (slot + 1) & mask {
		if other := &n.live[t[slot]-1]; key != nil && other.hash == hash && bytes.Equal(other.key, key) {
			return slot, true
		}
	}
	return slot, false
}
