package redisstore

import (
	"time"

	"tollgate/internal/limit"
)

// bucketsKept is how many seconds of own use are remembered, the running one and
// the one that slides out included.
const bucketsKept = int64(limit.Window/time.Second) + 1

// usage is this replica's own use of each key by second. It is guarded by the
// journal's mutex.
type usage struct {
	start   time.Time // seconds count from here
	keys    map[string]*history
	pending map[string]*history // those with use that Redis has not confirmed
}

// history is a key's own use by second, oldest first.
type history struct {
	buckets []bucket
}

type bucket struct {
	second                         int64
	requests, tokens               int64
	pendingRequests, pendingTokens int64
}

// sentUse is what Redis is sent of one second.
type sentUse struct {
	key              string
	second           int64
	requests, tokens int64
}

func newUsage() usage {
	return usage{start: time.Now(), keys: map[string]*history{}, pending: map[string]*history{}}
}

// second numbers the second of an instant.
func (u *usage) second(at time.Time) int64 { return int64(at.Sub(u.start) / time.Second) }

// add counts in the second of an instant.
func (u *usage) add(key string, at time.Time, requests, tokens int64, confirmed bool) {
	h := u.keys[key]
	if h == nil {
		h = &history{}
		u.keys[key] = h
	}
	now := u.second(time.Now())
	h.trim(now)
	b := h.bucket(u.second(at), now)
	if b == nil {
		return
	}
	b.requests += requests
	b.tokens += tokens
	if !confirmed {
		b.pendingRequests += requests
		b.pendingTokens += tokens
		u.pending[key] = h
	}
}

// confirm notes that Redis took what was sent of one second.
func (u *usage) confirm(s sentUse, now int64) {
	h := u.keys[s.key]
	if h == nil {
		return
	}
	if b := h.bucket(s.second, now); b != nil {
		b.pendingRequests -= s.requests
		b.pendingTokens -= s.tokens
	}
}

// lost makes all use pending.
func (u *usage) lost() {
	for key, h := range u.keys {
		for i := range h.buckets {
			b := &h.buckets[i]
			b.pendingRequests, b.pendingTokens = b.requests, b.tokens
		}
		u.pending[key] = h
	}
}

// sweep drops keys that were idle for a window.
func (u *usage) sweep() {
	now := u.second(time.Now())
	for key, h := range u.keys {
		if h.trim(now); len(h.buckets) == 0 {
			delete(u.keys, key)
			delete(u.pending, key)
		}
	}
}

// trim drops what has left the window.
func (h *history) trim(now int64) {
	n := 0
	for n < len(h.buckets) && h.buckets[n].second <= now-bucketsKept {
		n++
	}
	h.buckets = append(h.buckets[:0], h.buckets[n:]...)
}

// bucket returns the bucket of a second, nil when that has left the window.
func (h *history) bucket(second, now int64) *bucket {
	if second <= now-bucketsKept {
		return nil
	}
	i := len(h.buckets)
	for i > 0 && h.buckets[i-1].second > second {
		i--
	}
	if i > 0 && h.buckets[i-1].second == second {
		return &h.buckets[i-1]
	}
	h.buckets = append(h.buckets, bucket{})
	copy(h.buckets[i+1:], h.buckets[i:])
	h.buckets[i] = bucket{second: second}
	return &h.buckets[i]
}
