package upstream

import (
	"context"
	"runtime"
	"sync"

	"tollgate/bench/internal/clock"
)

const (
	// tick is the resolution of the wheel. Chunks carry the time at which they
	// were really written, so it coarsens the pacing and no measurement.
	tick  = int64(500_000)
	slots = 4096
)

// wheel calls its streams when their next chunk is due. One thread serves all
// of them: thousands of timers would cost more than the writes.
type wheel struct {
	mu     sync.Mutex
	slot   [slots]*stream // guarded by mu; linked by next
	count  int            // guarded by mu
	at     int64          // guarded by mu; the tick that was served last
	idle   bool           // guarded by mu
	wakeup chan struct{}
}

// newWheel begins now: a stream may come before the wheel turns, and every tick
// since the machine's start would have to be turned first.
func newWheel() *wheel { return &wheel{at: clock.Now() / tick, wakeup: make(chan struct{}, 1)} }

// add puts a stream in; due says when. What is late comes with the next tick.
func (w *wheel) add(s *stream) {
	w.mu.Lock()
	wake := w.idle
	if wake {
		w.idle, w.at = false, min(s.due, clock.Now())/tick-1
	}
	i := max(s.due/tick, w.at+1) % slots
	s.next, w.slot[i] = w.slot[i], s
	w.count++
	w.mu.Unlock()
	if wake {
		w.wakeup <- struct{}{}
	}
}

// run turns the wheel until ctx ends.
func (w *wheel) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		w.mu.Lock()
		w.idle = w.count == 0
		idle := w.idle
		if !idle {
			w.at++
		}
		at := w.at
		w.mu.Unlock()
		if idle {
			select {
			case <-w.wakeup:
			case <-ctx.Done():
				return
			}
			continue
		}
		clock.WaitUntil((at + 1) * tick)
		w.turn(at)
		if ctx.Err() != nil {
			return
		}
	}
}

// turn serves one slot: streams that are due write and go back in, the ones of
// a later round stay.
func (w *wheel) turn(at int64) {
	w.mu.Lock()
	list := w.slot[at%slots]
	w.slot[at%slots] = nil
	w.mu.Unlock()
	for list != nil {
		s := list
		list, s.next = s.next, nil
		w.mu.Lock()
		w.count--
		w.mu.Unlock()
		if s.due/tick > at || s.step() {
			w.add(s)
		}
	}
}
