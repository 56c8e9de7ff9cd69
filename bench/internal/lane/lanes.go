package lane

import (
	"context"
	"slices"
	"time"

	"tollgate/bench/internal/load"
	"tollgate/bench/internal/script"
)

// promptBytes is the prompt of the lanes that are not about prompts.
const promptBytes = 200

// Names of the lanes that put one job on all targets.
const (
	Streams   = "streams"
	Two       = "two"
	Short     = "short"
	Long      = "long"
	Burst     = "burst"
	Scale1    = "scale-1"
	Scale64   = "scale-64"
	Scale1000 = "scale-1000"
	Body1K    = "body-1k"
	Body220K  = "body-220k"
	Body8M    = "body-8m"
)

// Lane is one job for all targets.
type Lane struct {
	Name  string
	Title string
	Chunk bool // CPU is told per chunk; otherwise per request
	job   load.Job
}

// lanes are in the order in which they run and are printed.
var lanes = []Lane{
	{Streams, "20 streams at a time, 300 chunks, 5 ms apart", true, atLeast(5*time.Second, closed(20, 300, 5*time.Millisecond))},
	{Two, "60 streams per second, 2 chunks, 5 ms apart", false, open(60, 2, promptBytes)},
	{Short, "60 streams per second, 1 chunk", false, open(60, 1, promptBytes)},
	{Long, "20 streams at a time, 1,500 chunks, 5 ms apart", true, closed(20, 1500, 5*time.Millisecond)},
	{Burst, "20 streams in the same moment, 4 times a second, 2 chunks, 5 ms apart", false, burst(20, 4, 2)},
	{Scale1, "1 stream, 20 chunks, 5 ms apart", true, closed(1, 20, 5*time.Millisecond)},
	{Scale64, "64 streams at a time, 100 chunks, 20 ms apart", true, closed(64, 100, 20*time.Millisecond)},
	{Scale1000, "1,000 streams at a time, 24 chunks, 250 ms apart", true, atLeast(12*time.Second, closed(1000, 24, 250*time.Millisecond))},
	{Body1K, "60 requests per second with a prompt of 1 KiB", false, open(60, 1, 1<<10)},
	{Body220K, "50 requests per second with a prompt of 220 KiB", false, open(50, 1, 220<<10)},
	{Body8M, "2 requests per second with a prompt of 8 MiB", false, atLeast(6*time.Second, open(2, 1, 8<<20))},
}

func closed(n, chunks int, every time.Duration) load.Job {
	return load.Job{Closed: n, Stream: true, Body: promptBytes, Script: script.Script{Chunks: chunks, Every: every}}
}

func open(rate float64, chunks, body int) load.Job {
	return load.Job{Rate: rate, Stream: true, Body: body, Script: script.Script{Chunks: chunks, Every: 5 * time.Millisecond}}
}

// burst is n requests in the same moment, times a second.
func burst(n int, times float64, chunks int) load.Job {
	j := open(float64(n)*times, chunks, promptBytes)
	j.Burst = n
	return j
}

// atLeast is a job that needs so much time to say anything: thousands of
// streams must not all begin at once, or their beginning is all that is seen.
func atLeast(d time.Duration, j load.Job) load.Job {
	j.Duration = d
	return j
}

// Find returns the lane of a name.
func Find(name string) (Lane, bool) {
	i := slices.IndexFunc(lanes, func(l Lane) bool { return l.Name == name })
	if i < 0 {
		return Lane{}, false
	}
	return lanes[i], true
}

// WarmUp puts a little of the headline load on every target, unmeasured, so
// that code, connections and caches are there.
func (b *Bench) WarmUp(ctx context.Context) error {
	j := lanes[0].job
	j.Duration, j.Script.Chunks = min(time.Second, b.Duration), 100
	for _, t := range b.Targets {
		if _, err := b.measure(ctx, "warm-up", 0, t, j); err != nil {
			return err
		}
	}
	return nil
}

// Compare runs a lane.
func (b *Bench) Compare(ctx context.Context, l Lane) error {
	j := l.job
	j.Duration = max(j.Duration, b.Duration)
	return b.interleave(ctx, l.Name, b.Targets, j)
}
