package lane

import (
	"fmt"

	"tollgate/bench/internal/rig"
)

// Goal is one bound that Tollgate is held to, and what was measured.
type Goal struct {
	Name   string  `json:"name"`
	Most   float64 `json:"most"`
	Got    float64 `json:"got"`
	Missed bool    `json:"missed"`
	Void   bool    `json:"void"` // the machine was too restless to tell
}

// goalNoise is what two latencies may differ by without one being above the
// other: the clocks of the lanes are not better than that.
const goalNoise = 0.05 // ms

// Goals are the bounds of all lanes that ran.
func (b *Bench) Goals() []Goal {
	var out []Goal
	add := func(void bool, name string, got, most float64) {
		out = append(out, Goal{Name: name, Most: most, Got: got, Missed: got > most, Void: void})
	}
	if t, bare, c, ok := b.pair(Streams); ok {
		add(void(c.CPU), "streams: CPU per chunk over bare's", t.OverBare, 0.85)
		add(void(c.CPU), "streams: CPU per chunk over plain Envoy's", t.OverPlain, 4.0)
		add(void(c.CPU), "streams: tollgate's own CPU over the bare server's", t.ServerToBare, 0.75)
		add(void(c.Lag50), "streams: added delay p50, ms, not above bare's", t.AddedLag50, bare.AddedLag50+goalNoise)
		add(void(c.Lag99), "streams: added delay p99, ms, not above bare's", t.AddedLag99, bare.AddedLag99+goalNoise)
		add(void(c.TTFT50), "streams: added TTFT p50 over bare's", ratio(t.AddedTTFT50, bare.AddedTTFT50), 1.3)
	}
	if t, ok := b.figure(Streams, string(rig.Network)); ok && t.Rounds > 0 {
		c := b.Control(Streams)
		add(void(c.CPU), "streams: CPU over TCP and TLS over that of the Unix socket", t.OverSocket, 1.25)
	}
	if t, _, c, ok := b.pair(Short); ok {
		add(void(c.CPU), "short: CPU per request over bare's", t.OverBare, 1.15)
		add(void(c.CPU), "short: CPU per request over plain Envoy's", t.OverPlain, 8.1)
	}
	if t, bare, c, ok := b.pair(Burst); ok {
		add(void(c.TTFT50), "burst: added TTFT p50 over bare's", ratio(t.AddedTTFT50, bare.AddedTTFT50), 1.15)
	}
	if t, _, c, ok := b.pair(Body220K); ok {
		add(void(c.TTFT50), "220 KiB: added TTFT p50, ms", t.AddedTTFT50, 5)
		add(void(c.CPU), "220 KiB: tollgate's own CPU, ms per request", t.ServerReq, 2)
	}
	for _, i := range b.Idles {
		if i.Target == string(rig.Tollgate) && i.HTTP1 {
			add(i.Void != "", fmt.Sprintf("%d idle streams over HTTP/1.1: kB each", i.Streams), i.Envoy+i.Server, 90)
		}
		if i.Target == string(rig.Tollgate) && i.Streams >= 10000 {
			add(i.Void != "", fmt.Sprintf("%d idle streams: kB above plain Envoy, each", i.Streams), i.Above, 75)
		}
	}
	for _, s := range b.Soaks {
		add(s.Void != "", "soak: leaked leases", float64(s.Leases), 0)
	}
	return out
}

// pair are the figures of Tollgate and of the bare server in a lane.
func (b *Bench) pair(lane string) (own, bare Figure, c Control, ok bool) {
	own, ok1 := b.figure(lane, string(rig.Tollgate))
	bare, ok2 := b.figure(lane, NameBare)
	return own, bare, b.Control(lane), ok1 && ok2 && own.Rounds > 0 && bare.Rounds > 0
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
