package admission

import (
	"encoding/json"
	"maps"
	"time"
)

// remembered is what the attribution of one process tells that of the next, as JSON.
// Times are microseconds of the wall clock, 0 for none.
type remembered struct {
	At       int64              `json:"at"` // of the last reading, 0 before the first
	Tokens   int64              `json:"tokens"`
	Silent   int64              `json:"silent"`
	Foreign  int64              `json:"foreign"`
	Engines  int                `json:"engines"`
	Streamed int64              `json:"streamed"` // by streams that have ended since
	Streams  map[string]int64   `json:"streams,omitempty"`
	Spans    []rememberedSpan   `json:"spans,omitempty"`
	Whole    []rememberedAnswer `json:"whole,omitempty"`
	Rates    map[string]float64 `json:"rates,omitempty"`
}

type rememberedSpan struct {
	From    int64 `json:"from"`
	To      int64 `json:"to"`
	Grown   int64 `json:"grown"`
	Running int64 `json:"running"`
	Foreign int64 `json:"foreign"`
}

type rememberedAnswer struct {
	Lease   string `json:"lease"`
	Model   string `json:"model"`
	Choices int64  `json:"choices"`
	Begun   int64  `json:"begun"`
	Ended   int64  `json:"ended,omitempty"`
	Gone    int64  `json:"gone,omitempty"`
	Tokens  int64  `json:"tokens"`
	Bytes   int64  `json:"prompt_bytes"`
	Most    int64  `json:"max_tokens"`
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func ofMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

// remember is what the next process must know, nil where that has not changed.
func (a *attribution) remember() []byte {
	a.mu.Lock()
	if !a.unwritten || a.count == nil {
		a.mu.Unlock()
		return nil
	}
	a.unwritten = false
	last := a.last
	m := remembered{
		At: micros(last.at), Tokens: last.Tokens, Silent: last.silent, Foreign: last.foreign, Engines: last.Engines,
		Streamed: a.endedTokens, Rates: make(map[string]float64, len(a.rates)),
	}
	maps.Copy(m.Rates, a.rates)
	if a.running > 0 {
		m.Streams = make(map[string]int64, len(a.streams))
		for _, s := range a.streams {
			m.Streams[s.lease] = s.counted
		}
		for _, i := range a.intervals {
			m.Spans = append(m.Spans, rememberedSpan{micros(i.from), micros(i.to), i.grown, i.running, i.foreign})
		}
		for _, w := range a.whole {
			m.Whole = append(m.Whole, rememberedAnswer{
				w.lease, w.model, w.choices, micros(w.begun), micros(w.ended), micros(w.gone), w.tokens, w.promptBytes, w.maxTokens,
			})
		}
	}
	a.mu.Unlock()
	b, err := json.Marshal(m)
	if err != nil {
		return nil // a rate that is no number: nothing is better than that
	}
	return b
}

// recall takes over what the process before has written; whatever is no such thing is
// none. It must be called before everything else.
func (a *attribution) recall(b []byte) {
	var m remembered
	if len(b) == 0 || json.Unmarshal(b, &m) != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(a.rates, m.Rates)
	now, at := time.Now(), ofMicros(m.At)
	if age := now.Sub(at); at.IsZero() || age < 0 || age >= oldestReading || a.count == nil {
		return
	}
	a.last = reading{Generation: Generation{Tokens: m.Tokens, Engines: m.Engines}, at: at, silent: m.Silent, foreign: m.Foreign}
	a.resumeBy, a.readAt = now.Add(resumeWithin), now
	a.endedTokens, a.takenOver = m.Streamed, m.Streams
	for _, s := range m.Spans {
		a.intervals = append(a.intervals, interval{ofMicros(s.From), ofMicros(s.To), s.Grown, s.Running, s.Foreign})
	}
	for _, w := range m.Whole {
		answer := &wholeAnswer{
			lease: w.Lease, model: w.Model, choices: max(1, w.Choices), begun: ofMicros(w.Begun), ended: ofMicros(w.Ended), gone: ofMicros(w.Gone), tokens: w.Tokens,
			promptBytes: w.Bytes, maxTokens: w.Most,
		}
		if answer.lost = w.Ended == 0; answer.lost {
			answer.ended = at // unless its meter still has it
		}
		a.whole = append(a.whole, answer)
	}
}
