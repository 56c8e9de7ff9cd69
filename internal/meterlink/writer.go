package meterlink

import (
	"context"
	"sync"
	"time"
)

// entry is a record with what follows when it is written.
type entry struct {
	record Record
	done   func()
}

// writer hands records on, several at a time, and those that could not be written
// again each second.
type writer struct {
	write  func(context.Context, Record) error
	failed func(error) // told of the first failure of a round

	mu    sync.Mutex
	todo  []entry // guarded by mu
	later []entry // guarded by mu; could not be written
	busy  int     // guarded by mu; goroutines at work
	ended bool    // guarded by mu
	work  sync.WaitGroup
}

func newWriter(write func(context.Context, Record) error, failed func(error)) *writer {
	return &writer{write: write, failed: failed}
}

// add takes a record; never blocks.
func (w *writer) add(e entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo = append(w.todo, e)
	w.hire()
}

// hire starts one more goroutine where there is work for it. REQUIRES: mu held.
func (w *writer) hire() {
	if w.ended || w.busy >= min(atOnce, w.busy+len(w.todo)) {
		return
	}
	w.busy++
	w.work.Go(w.toil)
}

// toil writes records until there are none.
func (w *writer) toil() {
	for {
		w.mu.Lock()
		if len(w.todo) == 0 || w.ended {
			w.busy--
			w.mu.Unlock()
			return
		}
		e := w.todo[0]
		w.todo[0] = entry{}
		if w.todo = w.todo[1:]; len(w.todo) == 0 {
			w.todo = nil
		}
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
		err := w.write(ctx, e.record)
		cancel()
		if err == nil {
			e.done()
			continue
		}
		w.mu.Lock()
		first := len(w.later) == 0
		w.later = append(w.later, e)
		w.mu.Unlock()
		if first {
			w.failed(err)
		}
	}
}

// run tries again what failed until ctx ends, and then waits for what is being
// written.
func (w *writer) run(ctx context.Context) {
	t := time.NewTicker(again)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			w.mu.Lock()
			w.ended = true
			w.mu.Unlock()
			w.work.Wait()
			return
		case <-t.C:
		}
		w.mu.Lock()
		w.todo = append(w.todo, w.later...)
		w.later = nil
		for n := len(w.todo); n > 0 && w.busy < atOnce; n-- {
			w.hire()
		}
		w.mu.Unlock()
	}
}
