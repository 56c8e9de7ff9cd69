// Package lane measures: it puts the same load on every target in turn, round
// by round, checks each run against the upstream's truth, and judges whether
// the figures may be believed.
package lane

import (
	"context"
	"fmt"
	"io"
	"time"

	"tollgate/bench/internal/load"
	"tollgate/bench/internal/rig"
	"tollgate/bench/internal/sample"
	"tollgate/bench/internal/upstream"
)

// Target is one column of the comparison. Several may share a stack.
type Target struct {
	Name  string
	Stack *rig.Stack
	// Strip: the client does not ask for usage and gets none, though the
	// upstream sends it: Tollgate's usual work. Otherwise the client asks.
	Strip bool
}

// Run is one measurement of one target.
type Run struct {
	Lane     string        `json:"lane"`
	Target   string        `json:"target"`
	Round    int           `json:"round"`
	Requests int64         `json:"requests"`
	Chunks   int64         `json:"chunks"`
	Elapsed  time.Duration `json:"elapsed_ns"`
	Envoy    time.Duration `json:"envoy_cpu_ns"`
	Server   time.Duration `json:"server_cpu_ns"`
	Upstream time.Duration `json:"upstream_cpu_ns"`
	TTFT50   float64       `json:"ttft_p50_ms"`
	TTFT99   float64       `json:"ttft_p99_ms"`
	Lag50    float64       `json:"lag_p50_ms"`
	Lag99    float64       `json:"lag_p99_ms"`
	Late99   float64       `json:"upstream_late_p99_ms"` // how late the upstream itself wrote
	Aborted  int64         `json:"aborted,omitempty"`
	Cut      int64         `json:"cut,omitempty"`
	// Rows of the ledger that were compared with the truth.
	Rows int `json:"ledger_rows,omitempty"`
	// Void says why the run has no figures; empty when it has.
	Void string `json:"void,omitempty"`
}

// Bench runs lanes on a rig.
type Bench struct {
	Rig      *rig.Rig
	Targets  []Target
	Rounds   int
	Duration time.Duration // of one run
	Progress io.Writer

	Runs       []Run
	Idles      []Idle
	Capacities []Capacity
	Startups   []Started
	Soaks      []Soaked
}

// settleWait is what the last requests of a run get to be settled before the
// CPU clocks are read.
const settleWait = 100 * time.Millisecond

// measure puts one job on one target.
func (b *Bench) measure(ctx context.Context, lane string, round int, t Target, j load.Job) (Run, error) {
	j = aim(j, t)
	run := Run{Lane: lane, Target: t.Name, Round: round}
	if err := b.Rig.Reset(ctx); err != nil {
		return run, fmt.Errorf("reset upstream: %w", err)
	}
	since := time.Now()
	before, err := b.clocks(t)
	if err != nil {
		return run, err
	}
	d, err := b.Rig.Drive(ctx, j)
	if err != nil {
		return run, err
	}
	res, err := d.Result(false)
	if err != nil {
		return run, err
	}
	pause(ctx, settleWait)
	after, err := b.clocks(t)
	if err != nil {
		return run, err
	}
	run.Envoy, run.Server = after.envoy.Since(before.envoy), after.server.Since(before.server)
	run.Upstream = after.upstream.Since(before.upstream)
	truth, err := b.Rig.Truth(ctx)
	if err != nil {
		return run, err
	}
	run.fill(res, truth)
	return run, b.audit(ctx, &run, t, res, truth, since)
}

// aim is a job for one target.
func aim(j load.Job, t Target) load.Job {
	j.URL, j.Key, j.Model = t.Stack.URL, t.Stack.Key, upstream.Model
	j.Ask = !t.Strip
	if t.Strip && t.Stack.Kind == rig.Bare {
		j.Script.Usage, j.Script.Strip = true, true
	}
	return j
}

func (r *Run) fill(res *load.Result, truth *upstream.Truth) {
	r.Requests, r.Chunks, r.Elapsed = res.Requests, res.Chunks, res.Elapsed
	r.Aborted, r.Cut = res.Aborted, res.Cut
	r.TTFT50, r.TTFT99 = ms(res.TTFT.Quantile(0.5)), ms(res.TTFT.Quantile(0.99))
	r.Lag50, r.Lag99 = ms(res.Lag.Quantile(0.5)), ms(res.Lag.Quantile(0.99))
	r.Late99 = ms(truth.Late.Quantile(0.99))
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// clocks are the CPU times of all processes of a target.
type clocks struct{ envoy, server, upstream sample.CPU }

func (b *Bench) clocks(t Target) (c clocks, err error) {
	for _, p := range []struct {
		proc *rig.Proc
		to   *sample.CPU
	}{{t.Stack.Envoy, &c.envoy}, {t.Stack.Server, &c.server}, {b.Rig.Upstream, &c.upstream}} {
		if p.proc == nil {
			continue
		}
		if *p.to, err = sample.ReadCPU(p.proc.PID()); err != nil {
			return c, fmt.Errorf("read CPU of %s: %w", p.proc.Name, err)
		}
	}
	return c, nil
}

// interleave runs a job on every target, round by round. Each round begins
// with another target, so that none always follows the same one.
func (b *Bench) interleave(ctx context.Context, lane string, targets []Target, j load.Job) error {
	for round := range b.Rounds {
		for i := range targets {
			t := targets[(i+round)%len(targets)]
			j.Seed = uint64(round)
			run, err := b.measure(ctx, lane, round, t, j)
			if err != nil {
				return fmt.Errorf("measure %s on %s: %w", lane, t.Name, err)
			}
			b.Runs = append(b.Runs, run)
			b.say(run)
		}
	}
	return nil
}

func (b *Bench) say(r Run) {
	sum := r.Envoy + r.Server
	fmt.Fprintf(b.Progress, "%-10s %-12s round %d: %5d requests, %7d chunks, Envoy %6.2f s, server %6.2f s, sum %7.1f µs/chunk, TTFT %.2f/%.2f ms, lag %.2f/%.2f ms %s\n",
		r.Lane, r.Target, r.Round+1, r.Requests, r.Chunks, r.Envoy.Seconds(), r.Server.Seconds(),
		micros(sum, r.Chunks), r.TTFT50, r.TTFT99, r.Lag50, r.Lag99, r.Void)
}

func micros(d time.Duration, n int64) float64 {
	if n == 0 {
		return 0
	}
	return float64(d.Nanoseconds()) / 1e3 / float64(n)
}
