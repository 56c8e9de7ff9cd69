package lane

import (
	"context"
	"fmt"
	"time"

	"tollgate/bench/internal/load"
	"tollgate/bench/internal/rig"
	"tollgate/bench/internal/sample"
	"tollgate/bench/internal/script"
)

// Idle is the memory of streams that are open and silent.
type Idle struct {
	Target  string  `json:"target"`
	Streams int     `json:"streams"`
	HTTP1   bool    `json:"http1"` // clients with a connection each
	Envoy   float64 `json:"envoy_kb_per_stream"`
	Server  float64 `json:"server_kb_per_stream"`
	// Above is the sum beyond plain Envoy's at as many streams.
	Above float64 `json:"kb_above_plain"`
	Void  string  `json:"void,omitempty"`
}

// mostHTTP1 is how many streams are opened over HTTP/1.1 too: each is a connection
// of its own, on both sides of Envoy.
const mostHTTP1 = 1000

// Idle opens n streams over HTTP/2, and over HTTP/1.1 where they are not too many, on
// stacks of its own, fresh ones, since memory that earlier load left behind would hide
// what these need.
func (b *Bench) Idle(ctx context.Context, n int) error {
	if n <= mostHTTP1 {
		if err := b.idles(ctx, n, true); err != nil {
			return err
		}
	}
	return b.idles(ctx, n, false)
}

func (b *Bench) idles(ctx context.Context, n int, http1 bool) error {
	var plain float64
	for _, kind := range []rig.Kind{rig.Plain, rig.Bare, rig.ExtProc, rig.Tollgate} {
		f, err := b.idle(ctx, kind, n, http1)
		if err != nil {
			return fmt.Errorf("measure memory of %s: %w", kind, err)
		}
		if kind == rig.Plain {
			plain = f.Envoy + f.Server
		}
		f.Above = f.Envoy + f.Server - plain
		b.Idles = append(b.Idles, f)
		fmt.Fprintf(b.Progress, "idle       %-12s %d streams over %s: Envoy %.1f kB, server %.1f kB, above plain %.1f kB per stream %s\n", f.Target, n, f.Protocol(), f.Envoy, f.Server, f.Above, f.Void)
	}
	return nil
}

// Protocol is what the clients spoke.
func (f Idle) Protocol() string {
	if f.HTTP1 {
		return "HTTP/1.1"
	}
	return "HTTP/2"
}

// rest is what memory gets to come to rest.
const rest = 3 * time.Second

func (b *Bench) idle(ctx context.Context, kind rig.Kind, n int, http1 bool) (Idle, error) {
	f := Idle{Target: string(kind), Streams: n, HTTP1: http1}
	s, err := b.Rig.Start(ctx, kind, fmt.Sprintf("idle-%s-%d-%v", kind, n, http1), "")
	if err != nil {
		return f, err
	}
	defer s.Stop()
	t := Target{Name: string(kind), Stack: s, Strip: kind != rig.Plain}
	warm := closed(4, 10, 5*time.Millisecond)
	warm.Duration, warm.HTTP2 = time.Second, !http1
	if _, err := b.measure(ctx, "warm-up", 0, t, warm); err != nil {
		return f, err
	}
	pause(ctx, rest)
	before, err := memory(s)
	if err != nil {
		return f, err
	}
	j := aim(load.Job{Closed: n, Hold: true, HTTP2: !http1, Stream: true, Body: promptBytes, Script: script.Script{Chunks: 1, Stall: true}}, t)
	d, err := b.Rig.Drive(ctx, j)
	if err != nil {
		return f, err
	}
	// A driver that cannot open them all never says so.
	stuck := time.AfterFunc(2*time.Minute, d.Kill)
	err = d.Held()
	stuck.Stop()
	if err != nil {
		return f, err
	}
	pause(ctx, rest)
	after, err := memory(s)
	if err != nil {
		return f, err
	}
	res, err := d.Result(true)
	if err != nil {
		return f, err
	}
	pause(ctx, rest) // a stop in the middle of thousands of ends is another measurement
	if res.Failed() > 0 {
		f.Void = fmt.Sprint(res.Errors)
	}
	f.Envoy, f.Server = float64(after.envoy-before.envoy)/1024/float64(n), float64(after.server-before.server)/1024/float64(n)
	return f, nil
}

// resident is memory in bytes.
type resident struct{ envoy, server int64 }

func memory(s *rig.Stack) (m resident, err error) {
	if m.envoy, err = sample.ReadRSS(s.Envoy.PID()); err != nil {
		return m, err
	}
	if s.Server != nil {
		m.server, err = sample.ReadRSS(s.Server.PID())
	}
	return m, err
}
