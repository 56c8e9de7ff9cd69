package vllmsim

import "context"

// seat takes the places in the batch that p needs, waiting for them if need be.
func (x *exchange) seat(p *plan) error {
	n := int64(len(p.choices))
	x.tally.do(func(t *tally) { t.sequencesWait += int(n); t.Waiting++ })
	err := x.acquire(n)
	x.tally.do(func(t *tally) {
		t.sequencesWait -= int(n)
		t.Waiting--
		if err == nil {
			t.sequences += int(n)
			t.adapters[x.adapter]++
		}
	})
	if err == nil {
		x.seats = n
	}
	return err
}

// acquire waits for n places, at most for as many as there are.
func (x *exchange) acquire(n int64) error {
	batch := x.sim.batch
	if batch == nil {
		return x.wait(0)
	}
	n = min(n, int64(x.sim.opts.MaxNumSeqs))
	if batch.TryAcquire(n) {
		return nil
	}
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	go func() { // ends with cancel above
		select {
		case <-x.life.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	if batch.Acquire(ctx, n) == nil {
		return nil
	}
	if err := x.life.err(); err != nil {
		return err
	}
	return errGone
}

// unseat gives the places back.
func (x *exchange) unseat() {
	n := x.seats
	if n == 0 {
		return
	}
	x.seats = 0
	x.tally.do(func(t *tally) {
		t.sequences -= int(n)
		t.adapters[x.adapter]--
	})
	if x.sim.batch != nil {
		x.sim.batch.Release(min(n, int64(x.sim.opts.MaxNumSeqs)))
	}
}
