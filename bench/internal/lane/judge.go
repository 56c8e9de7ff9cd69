package lane

import (
	"math"
	"slices"
	"time"

	"tollgate/bench/internal/rig"
)

// Figure is the median of one quantity over the valid rounds of a target.
type Figure struct {
	Lane   string `json:"lane"`
	Target string `json:"target"`
	Rounds int    `json:"rounds"` // that count
	Voided int    `json:"voided"` // that do not

	EnvoyChunk   float64 `json:"envoy_us_per_chunk"`
	ServerChunk  float64 `json:"server_us_per_chunk"`
	SumChunk     float64 `json:"sum_us_per_chunk"`
	EnvoyReq     float64 `json:"envoy_ms_per_request"`
	ServerReq    float64 `json:"server_ms_per_request"`
	SumReq       float64 `json:"sum_ms_per_request"`
	TTFT50       float64 `json:"ttft_p50_ms"`
	TTFT99       float64 `json:"ttft_p99_ms"`
	Lag50        float64 `json:"lag_p50_ms"`
	Lag99        float64 `json:"lag_p99_ms"`
	AddedTTFT50  float64 `json:"added_ttft_p50_ms"` // over direct, round by round
	AddedTTFT99  float64 `json:"added_ttft_p99_ms"`
	AddedLag50   float64 `json:"added_lag_p50_ms"`
	AddedLag99   float64 `json:"added_lag_p99_ms"`
	OverPlain    float64 `json:"sum_over_plain"` // ratio of the sums of CPU, round by round; over the mean of plain and plain again
	OverBare     float64 `json:"sum_over_bare"`
	ServerToBare float64 `json:"server_over_bare_server"`
	OverSocket   float64 `json:"sum_over_socket"` // over Tollgate that meters by ext_proc, beside Envoy
}

// The targets that others are measured against.
const (
	NameDirect     = "direct"
	NamePlain      = "plain"
	NamePlainAgain = "plain again"
	NameBare       = "bare"
	NameTollgate   = "tollgate"
)

// noise is the difference between equals above which a run says nothing.
const noise = 0.10

// Control is what the same target, measured twice, differs by.
type Control struct {
	Lane   string  `json:"lane"`
	CPU    float64 `json:"cpu"` // shares: 0.05 is 5 %
	TTFT50 float64 `json:"ttft_p50"`
	TTFT99 float64 `json:"ttft_p99"`
	Lag50  float64 `json:"lag_p50"`
	Lag99  float64 `json:"lag_p99"`
}

// void reports whether a kind of figure says nothing.
func void(apart float64) bool { return apart > noise }

// Figures are the medians of a lane, in the order of the targets.
func (b *Bench) Figures(lane string) []Figure {
	var out []Figure
	for _, t := range b.Targets {
		if f, ok := b.figure(lane, t.Name); ok {
			out = append(out, f)
		}
	}
	return out
}

// Control compares the two columns of plain Envoy in a lane: by how much they
// typically differ within a round, whichever is the larger. The median of the
// signed differences would not do: rounds that are 20 % apart in both directions
// cancel out, and a restless machine looks calm.
func (b *Bench) Control(lane string) Control {
	one, _ := b.valid(lane, NamePlain)
	two, _ := b.valid(lane, NamePlainAgain)
	between := func(of func(Run) float64) float64 {
		var all []float64
		for round, r := range one {
			if o, ok := two[round]; ok && of(r) > 0 {
				all = append(all, math.Abs(of(o)/of(r)-1))
			}
		}
		if len(all) == 0 {
			return 1 // nothing was controlled
		}
		return median(all)
	}
	return Control{
		Lane:   lane,
		CPU:    between(func(r Run) float64 { return micros(r.Envoy+r.Server, r.Requests) }),
		TTFT50: between(func(r Run) float64 { return r.TTFT50 }),
		TTFT99: between(func(r Run) float64 { return r.TTFT99 }),
		// A stream of one chunk has no delays: equal, not uncontrolled.
		Lag50: between(func(r Run) float64 { return max(r.Lag50, 1e-6) }),
		Lag99: between(func(r Run) float64 { return max(r.Lag99, 1e-6) }),
	}
}

// valid are the rounds of a target in a lane that have figures.
func (b *Bench) valid(lane, target string) (runs map[int]Run, voided int) {
	runs = map[int]Run{}
	for _, r := range b.Runs {
		if r.Lane != lane || r.Target != target {
			continue
		}
		if r.Void != "" {
			voided++
			continue
		}
		runs[r.Round] = r
	}
	return runs, voided
}

func (b *Bench) figure(lane, target string) (Figure, bool) {
	runs, voided := b.valid(lane, target)
	f := Figure{Lane: lane, Target: target, Rounds: len(runs), Voided: voided}
	if len(runs) == 0 {
		return f, voided > 0
	}
	over := func(of func(Run) float64) float64 {
		all := make([]float64, 0, len(runs))
		for _, r := range runs {
			all = append(all, of(r))
		}
		return median(all)
	}
	sum := func(r Run) time.Duration { return r.Envoy + r.Server }
	f.EnvoyChunk = over(func(r Run) float64 { return micros(r.Envoy, r.Chunks) })
	f.ServerChunk = over(func(r Run) float64 { return micros(r.Server, r.Chunks) })
	f.SumChunk = over(func(r Run) float64 { return micros(sum(r), r.Chunks) })
	f.EnvoyReq = over(func(r Run) float64 { return micros(r.Envoy, r.Requests) / 1e3 })
	f.ServerReq = over(func(r Run) float64 { return micros(r.Server, r.Requests) / 1e3 })
	f.SumReq = over(func(r Run) float64 { return micros(sum(r), r.Requests) / 1e3 })
	f.TTFT50, f.TTFT99 = over(func(r Run) float64 { return r.TTFT50 }), over(func(r Run) float64 { return r.TTFT99 })
	f.Lag50, f.Lag99 = over(func(r Run) float64 { return r.Lag50 }), over(func(r Run) float64 { return r.Lag99 })

	// Against another target only within a round: the machine changes between them.
	beside := func(other string, of func(r, o Run) float64) float64 {
		base, _ := b.valid(lane, other)
		var all []float64
		for round, r := range runs {
			if o, ok := base[round]; ok {
				all = append(all, of(r, o))
			}
		}
		return median(all)
	}
	f.AddedTTFT50 = beside(NameDirect, func(r, o Run) float64 { return r.TTFT50 - o.TTFT50 })
	f.AddedTTFT99 = beside(NameDirect, func(r, o Run) float64 { return r.TTFT99 - o.TTFT99 })
	f.AddedLag50 = beside(NameDirect, func(r, o Run) float64 { return r.Lag50 - o.Lag50 })
	f.AddedLag99 = beside(NameDirect, func(r, o Run) float64 { return r.Lag99 - o.Lag99 })
	again, _ := b.valid(lane, NamePlainAgain)
	f.OverPlain = beside(NamePlain, func(r, o Run) float64 {
		over := perRequest(sum, r, o)
		// Measured twice: the mean of both is steadier than either.
		if twice := perRequest(sum, r, again[o.Round]); twice > 0 {
			return 2 / (1/over + 1/twice)
		}
		return over
	})
	f.OverBare = beside(NameBare, func(r, o Run) float64 { return perRequest(sum, r, o) })
	f.OverSocket = beside(string(rig.ExtProc), func(r, o Run) float64 { return perRequest(sum, r, o) })
	f.ServerToBare = beside(NameBare, func(r, o Run) float64 {
		return perRequest(func(r Run) time.Duration { return r.Server }, r, o)
	})
	return f, true
}

// perRequest is the ratio of two runs' CPU per request; 0 where there is none.
func perRequest(of func(Run) time.Duration, r, o Run) float64 {
	base := micros(of(o), o.Requests)
	if base == 0 {
		return 0
	}
	return micros(of(r), r.Requests) / base
}

// median of no values is 0.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Split is what a target's CPU consists of: a part per request and a part per
// chunk, see [Bench.Splits].
type Split struct {
	Target          string  `json:"target"`
	EnvoyPerK       float64 `json:"envoy_s_per_1000_requests"`
	ServerPerK      float64 `json:"server_s_per_1000_requests"`
	EnvoyPerM       float64 `json:"envoy_s_per_million_chunks"`
	ServerPerM      float64 `json:"server_s_per_million_chunks"`
	RequestOverSame float64 `json:"requests_over_plain"`
	ChunkOverSame   float64 `json:"chunks_over_plain"`
}

// aparts are pairs of lanes whose answers differ in length and, as far as can be, in
// nothing else, the better pair first: as many streams run in both lanes of it, so
// caches and branches are as warm. Of two, a request is among others sixty times a
// second, of streams thirteen times, and what it costs more for that counts as chunks.
var aparts = [][2]string{{Streams, Long}, {Two, Streams}}

// splitBy are the lanes that tell requests from chunks, shorter answers first.
func (b *Bench) splitBy() (near, far Lane, ok bool) {
	for _, names := range aparts {
		few, ok1 := b.figure(names[0], NamePlain)
		many, ok2 := b.figure(names[1], NamePlain)
		if ok1 && ok2 && few.Rounds > 0 && many.Rounds > 0 {
			near, _ = Find(names[0])
			far, _ = Find(names[1])
			return near, far, true
		}
	}
	return Lane{}, Lane{}, false
}

// Splits are the slopes and intercepts of all targets that have both lanes.
func (b *Bench) Splits() []Split {
	var out []Split
	var plains, perRequest, perChunk float64 // of plain Envoy, measured twice
	near, far, ok := b.splitBy()
	if !ok {
		return nil
	}
	less, more := float64(near.job.Script.Chunks), float64(far.job.Script.Chunks)
	for _, t := range b.Targets {
		few, ok1 := b.figure(near.Name, t.Name)
		many, ok2 := b.figure(far.Name, t.Name)
		if !ok1 || !ok2 || few.Rounds == 0 || many.Rounds == 0 || many.EnvoyReq == 0 {
			continue
		}
		cut := func(m, f float64) (slope, at0 float64) { // ms per chunk and per request
			slope = (m - f) / (more - less)
			return slope, f - less*slope
		}
		s := Split{Target: t.Name}
		var slope, at0 float64
		slope, at0 = cut(many.EnvoyReq, few.EnvoyReq)
		s.EnvoyPerM, s.EnvoyPerK = slope*1e3, at0
		slope, at0 = cut(many.ServerReq, few.ServerReq)
		s.ServerPerM, s.ServerPerK = slope*1e3, at0
		if t.Name == NamePlain || t.Name == NamePlainAgain {
			plains++
			perRequest, perChunk = perRequest+s.EnvoyPerK, perChunk+s.EnvoyPerM
		}
		out = append(out, s)
	}
	for i := range out {
		if perRequest > 0 && perChunk > 0 {
			out[i].RequestOverSame = (out[i].EnvoyPerK + out[i].ServerPerK) / perRequest * plains
			out[i].ChunkOverSame = (out[i].EnvoyPerM + out[i].ServerPerM) / perChunk * plains
		}
	}
	return out
}
