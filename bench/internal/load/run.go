package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"tollgate/bench/internal/clock"
)

// runner is a job at work.
type runner struct {
	job    *Job
	client client
	held   func() // called for each held stream once it is open

	requests, complete, aborted, cut, chunks atomic.Int64

	mu     sync.Mutex
	rng    *rand.Rand // guarded by mu
	result Result     // maps guarded by mu; histograms take care of themselves
}

// Run does a job. Requests that fail are counted, not returned. With Hold, held
// is called once for every stream that is open, and Run returns when ctx ends.
func Run(ctx context.Context, j *Job, held func()) (*Result, error) {
	c, err := newClient(j)
	if err != nil {
		return nil, err
	}
	if held == nil {
		held = func() {}
	}
	r := &runner{job: j, client: c, held: held, rng: rand.New(rand.NewPCG(j.Seed, 1))} //nolint:gosec // load, not secrets
	r.result.Errors, r.result.Delivered = map[string]int64{}, map[string]Delivered{}
	start := time.Now()
	if j.Closed > 0 {
		r.closed(ctx)
	} else {
		r.open(ctx)
	}
	out := &r.result
	out.Elapsed = time.Since(start)
	out.Requests, out.Complete, out.Aborted = r.requests.Load(), r.complete.Load(), r.aborted.Load()
	out.Cut, out.Chunks = r.cut.Load(), r.chunks.Load()
	return out, nil
}

// closed runs workers. Their starts are spread over one answer and one chunk
// more, so that chunks of different streams do not come in step: a gateway that
// wakes once for many of them would look cheaper than it is, and one that
// delays the first chunk would lose that gift and look dearer.
func (r *runner) closed(ctx context.Context) {
	every := r.job.Script.Every
	spread := min(time.Duration(r.job.Script.Chunks)*every, r.job.Duration/2) + every
	if r.job.Hold {
		spread = time.Duration(r.job.Closed) * time.Millisecond
	}
	end := time.Now().Add(r.job.Duration)
	var workers sync.WaitGroup
	for i := range r.job.Closed {
		workers.Go(func() {
			wait(ctx, spread*time.Duration(i)/time.Duration(r.job.Closed))
			for ctx.Err() == nil && (r.job.Hold || time.Now().Before(end)) {
				ok := r.request(ctx, clock.Now())
				if r.job.Hold {
					return
				}
				if !ok {
					wait(ctx, afterError) // a gateway that is down must not be hammered
				}
			}
		})
	}
	workers.Wait()
}

// open begins requests at a steady rate, or as many in bursts. A request's time counts from when it
// should have begun: a driver that falls behind does not hide it.
func (r *runner) open(ctx context.Context) {
	// A timer of the runtime would be late by up to a millisecond, and each
	// request's time would have it in it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := clock.Now()
	burst := max(r.job.Burst, 1)
	gap := float64(time.Second) / r.job.Rate * float64(burst)
	var running sync.WaitGroup
	for i := 0; ; i++ {
		due := start + int64(float64(i)*gap)
		if due-start >= int64(r.job.Duration) || ctx.Err() != nil {
			break
		}
		clock.WaitUntil(due)
		for range burst {
			running.Go(func() { r.request(ctx, due) })
		}
	}
	running.Wait()
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// plan is what shall happen to one stream.
type plan struct {
	script string
	abort  int // the client leaves after so many chunks; 0 = never
	cut    bool
}

func (r *runner) plan() plan {
	s := r.job.Script
	var p plan
	if n := s.Chunks; n > 1 && r.job.Abort+r.job.Cut > 0 {
		r.mu.Lock()
		share, at := r.rng.Float64(), 1+r.rng.IntN(n-1)
		r.mu.Unlock()
		switch {
		case share < r.job.Abort:
			p.abort = at
		case share < r.job.Abort+r.job.Cut:
			p.cut, s.Cut = true, at
		}
	}
	p.script = s.String()
	return p
}

// afterError is how long a worker rests.
const afterError = 10 * time.Millisecond

// request does one request and counts its end; false is an error.
func (r *runner) request(ctx context.Context, start int64) (ok bool) {
	r.requests.Add(1)
	p := r.plan()
	ok = true
	id, got, err := r.exchange(ctx, p, start)
	switch {
	case err == nil && p.abort > 0:
		r.aborted.Add(1)
	case err == nil:
		got.Complete = true
		r.complete.Add(1)
	case p.cut || r.job.Hold && ctx.Err() != nil:
		r.cut.Add(1) // a cut may overtake the first chunk, and then it is an error status
	default:
		ok = false
		r.mu.Lock()
		r.result.Errors[kind(err)]++
		r.mu.Unlock()
	}
	if id != "" {
		r.mu.Lock()
		r.result.Delivered[id] = got
		r.mu.Unlock()
	}
	return ok
}

func (r *runner) exchange(ctx context.Context, p plan, start int64) (id string, got Delivered, err error) {
	x, err := r.client.do(ctx, p.script)
	if err != nil {
		return "", got, err
	}
	whole := false
	defer func() { x.close(whole) }()
	if x.status != http.StatusOK {
		_, _ = io.Copy(io.Discard, x.body)
		return x.id, got, statusError(x.status)
	}
	if !r.job.Stream {
		if _, err := io.Copy(io.Discard, x.body); err != nil {
			return x.id, got, fmt.Errorf("read body: %w", err)
		}
		r.result.TTFT.Record(clock.Now() - start)
		whole, got.Chunks = true, r.job.Script.Chunks
		return x.id, got, nil
	}
	err = r.events(x.body, p, start, &got)
	whole = err == nil && p.abort == 0
	return x.id, got, err
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

// text stands before the time in every chunk of the upstream.
var text = []byte(`"content":" `)

// events reads an event stream to its end, or to where the client leaves it.
func (r *runner) events(body io.Reader, p plan, start int64, got *Delivered) error {
	br, _ := readers.Get().(*bufio.Reader) // it holds nothing else
	br.Reset(body)
	defer readers.Put(br)
	done := false
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, io.EOF) && done {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return errEnd
		}
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if bytes.HasPrefix(line, []byte("data: [DONE]")) {
			done = true
			continue
		}
		written, ok := chunkTime(line)
		if !ok {
			continue
		}
		now := clock.Now()
		if got.Chunks++; got.Chunks == 1 {
			r.result.TTFT.Record(now - start)
			if r.job.Hold {
				r.held()
			}
		} else {
			r.result.Lag.Record(now - written)
		}
		r.chunks.Add(1)
		if p.abort > 0 && got.Chunks >= p.abort {
			return nil
		}
	}
}

// chunkTime reads the time in a chunk; false when it has no text.
func chunkTime(line []byte) (ns int64, ok bool) {
	_, digits, found := bytes.Cut(line, text)
	if !found {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			break
		}
		ns, ok = ns*10+int64(c-'0'), true
	}
	return ns, ok
}
