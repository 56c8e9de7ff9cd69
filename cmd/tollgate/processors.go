package main

import (
	"context"
	"runtime"
	"syscall"
	"time"

	"tollgate/internal/sqlitestore"
)

// lookEvery is between two looks at how busy the service is.
const lookEvery = 500 * time.Millisecond

// processors lets the service compute on few of the processors that this
// process may use while that is enough, and on all of them when it is busy.
//
// A message of Envoy is little work, and waking another processor for it costs
// as much as the work itself; see docs/decisions/0011-processors.md.
type processors struct {
	few, all int
	cpu      func() time.Duration // what the process has used so far
	set      func(int)
}

// adjustProcessors begins with few processors and follows the load until ctx
// ends. GOMAXPROCS in the environment goes before.
func adjustProcessors(ctx context.Context, getenv func(string) string, sync string) {
	all := runtime.GOMAXPROCS(0)
	p := processors{few: fewOf(all, sync), all: all, cpu: cpuTime, set: func(n int) { runtime.GOMAXPROCS(n) }}
	if getenv("GOMAXPROCS") == "" && p.few < p.all {
		p.set(p.few)
		go p.follow(ctx)
	}
}

// fewOf is half of n processors, rounded up.
func fewOf(n int, sync string) int {
	half := (n + 1) / 2
	if sync == sqlitestore.SyncPower {
		// A goroutine in fsync keeps its processor until Go's monitor takes it away, up
		// to 10 ms later. The streams need another one meanwhile.
		return min(n, max(half, 2))
	}
	return half
}

// follow looks at the load until ctx ends.
func (p *processors) follow(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	now, used, at := p.few, p.cpu(), time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.set(p.all) // what is left is the drain
			return
		}
		u, t := p.cpu(), time.Now()
		next := p.enough(now, (u-used).Seconds()/t.Sub(at).Seconds())
		if next != now {
			p.set(next)
		}
		now, used, at = next, u, t
	}
}

// enough is how many processors to compute on next, after now of them of which
// busy were.
func (p *processors) enough(now int, busy float64) int {
	switch {
	case busy > 0.6*float64(p.few): // above it messages wait for each other
		return p.all
	case busy < 0.3*float64(p.few):
		return p.few
	}
	return now
}

// cpuTime is what this process has used so far; 0 where the system does not say.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
