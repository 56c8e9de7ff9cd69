package lane

import (
	"context"
	"fmt"
	"time"

	"tollgate/bench/internal/load"
	"tollgate/bench/internal/rig"
)

// Soaked is what a long run showed.
type Soaked struct {
	Streams     int           `json:"streams"` // at a time
	Duration    time.Duration `json:"duration_ns"`
	Requests    int64         `json:"requests"`
	Chunks      int64         `json:"chunks"`
	Cuts        int64         `json:"cuts"`           // by clients and by the upstream
	Rows        int           `json:"ledger_rows"`    // all compared with the truth
	Pauses      int           `json:"pauses"`         // in which nothing begins and few old streams end
	Leases      int           `json:"leases"`         // live at the end
	EnvoyStart  float64       `json:"envoy_mb_start"` // after warm-up
	EnvoyEnd    float64       `json:"envoy_mb_end"`
	ServerStart float64       `json:"server_mb_start"`
	ServerEnd   float64       `json:"server_mb_end"`
	EnvoySlope  float64       `json:"envoy_mb_per_hour"` // least squares after warm-up
	ServerSlope float64       `json:"server_mb_per_hour"`
	Series      []Memory      `json:"series"` // at most a hundred, from the first second to the last
	Void        string        `json:"void,omitempty"`
}

// Memory is what was resident at one time.
type Memory struct {
	Minutes float64 `json:"minutes"`
	Envoy   float64 `json:"envoy_mb"`
	Server  float64 `json:"server_mb"`
}

const (
	soakCuts   = 0.05 // of the streams, by clients; as many by the upstream
	soakChunks = 300
	soakPace   = 20 * time.Millisecond
	soakFewest = 40 // streams, where the capacity is not known
	soakWarmUp = 4  // the first 1/4 is not looked at
	soakSeries = 100

	// So often the load stops, for longer than it takes a stream to get as old as
	// has ever been needed to break Envoy; a few streams grow that old in the
	// silence and end in it. Steady load hides what breaks there.
	soakPart    = 5 * time.Minute
	soakPause   = 90 * time.Second
	soakOld     = 4 // streams
	soakOldAged = 80 * time.Second

	// Before that short answers fill what fills by the number of requests, the
	// ledger's page cache first: ten thousand requests, which a soak of long
	// streams may not reach in its first quarter.
	fillStreams, fillChunks = 12, 2
	fillPace                = 5 * time.Millisecond
	fillLongest             = 40 * time.Second
)

// Soak puts half of Tollgate's capacity on a fresh stack for d, with one stream
// in ten cut, and with a pause in every [soakPart].
func (b *Bench) Soak(ctx context.Context, d time.Duration) error {
	streams := soakFewest
	for _, c := range b.Capacities {
		if c.Target == string(rig.Tollgate) && c.Carried > 0 {
			streams = c.Carried / 2 / int(time.Second/soakPace)
		}
	}
	s, err := b.Rig.Start(ctx, rig.Tollgate, "soak", "")
	if err != nil {
		return fmt.Errorf("soak: %w", err)
	}
	defer s.Stop()
	t := Target{Name: string(rig.Tollgate), Stack: s, Strip: true}
	fill := closed(fillStreams, fillChunks, fillPace)
	fill.Duration = min(fillLongest, d/10)
	if _, err := b.measure(ctx, "soak", 0, t, fill); err != nil {
		return fmt.Errorf("soak: warm up: %w", err)
	}
	watching, stop := context.WithCancel(ctx)
	series := make(chan []point, 1)
	go func() { series <- watch(watching, s) }()
	out, begun := Soaked{Streams: streams}, time.Now()
	err = b.soakParts(ctx, t, &out, d)
	stop()
	out.Duration = time.Since(begun)
	points := <-series
	if err != nil {
		return fmt.Errorf("soak: %w", err)
	}
	if out.Leases, err = s.Leases(ctx); err != nil {
		return fmt.Errorf("soak: %w", err)
	}
	for i, p := range points {
		if i%(len(points)/soakSeries+1) == 0 {
			out.Series = append(out.Series, Memory{Minutes: p.hours * 60, Envoy: p.envoy, Server: p.server})
		}
	}
	if len(points) > 0 {
		points = points[len(points)/soakWarmUp:]
		first, last := points[0], points[len(points)-1]
		out.EnvoyStart, out.EnvoyEnd, out.EnvoySlope = first.envoy, last.envoy, slope(points, func(p point) float64 { return p.envoy })
		out.ServerStart, out.ServerEnd, out.ServerSlope = first.server, last.server, slope(points, func(p point) float64 { return p.server })
	}
	b.Soaks = append(b.Soaks, out)
	fmt.Fprintf(b.Progress, "soak       %+v\n", out)
	return nil
}

// soakParts puts load and pauses on a target in turn for d.
func (b *Bench) soakParts(ctx context.Context, t Target, out *Soaked, d time.Duration) error {
	busy := closed(out.Streams, soakChunks, soakPace)
	busy.Abort, busy.Cut = soakCuts, soakCuts
	old := closed(soakOld, int(soakOldAged/time.Second), time.Second)
	old.Duration = time.Second // each worker begins one
	for left := d; left > 0; left -= soakPart {
		busy.Duration = left
		pauses := left > soakPause
		if pauses {
			busy.Duration = min(left, soakPart) - soakPause
		}
		if err := b.soakRun(ctx, t, out, busy); err != nil {
			return err
		}
		if !pauses {
			return nil
		}
		end := time.Now().Add(soakPause)
		if err := b.soakRun(ctx, t, out, old); err != nil {
			return err
		}
		pause(ctx, time.Until(end))
		out.Pauses++
	}
	return nil
}

// soakRun adds one measurement.
func (b *Bench) soakRun(ctx context.Context, t Target, out *Soaked, j load.Job) error {
	run, err := b.measure(ctx, "soak", 0, t, j)
	if err != nil {
		return err
	}
	out.Requests, out.Chunks, out.Cuts = out.Requests+run.Requests, out.Chunks+run.Chunks, out.Cuts+run.Aborted+run.Cut
	out.Rows += run.Rows
	if out.Void == "" {
		out.Void = run.Void
	}
	return nil
}

// point is the memory at one time, in MB.
type point struct {
	hours         float64
	envoy, server float64
}

// watch reads the memory until ctx ends.
func watch(ctx context.Context, s *rig.Stack) (points []point) {
	begun := time.Now()
	t := time.NewTicker(2 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if m, err := memory(s); err == nil {
				points = append(points, point{time.Since(begun).Hours(), float64(m.envoy) / 1e6, float64(m.server) / 1e6})
			}
		case <-ctx.Done():
			return points
		}
	}
}

// slope is the least-squares slope per hour.
func slope(points []point, of func(point) float64) float64 {
	var n, x, y, xx, xy float64
	for _, p := range points {
		v := of(p)
		n, x, y, xx, xy = n+1, x+p.hours, y+v, xx+p.hours*p.hours, xy+p.hours*v
	}
	if d := n*xx - x*x; d > 0 {
		return (n*xy - x*y) / d
	}
	return 0
}
