package usage_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"tollgate/internal/usage"
)

// A member of an object; objects keep their order and their duplicates.
type member struct {
	Key   string
	Value any
}

type (
	object []member
	array  []any
)

// decode reads a whole JSON text the slow way; nil and false when it is none.
func decode(data []byte) (any, bool) {
	if !json.Valid(data) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := decodeValue(dec)
	return v, err == nil
}

func decodeValue(dec *json.Decoder) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	switch tok {
	case json.Delim('{'):
		o := object{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, fmt.Errorf("read key: %w", err)
			}
			v, err := decodeValue(dec)
			if err != nil {
				return nil, err
			}
			o = append(o, member{k.(string), v})
		}
		_, err = dec.Token()
		return o, err
	case json.Delim('['):
		a := array{}
		for dec.More() {
			v, err := decodeValue(dec)
			if err != nil {
				return nil, err
			}
			a = append(a, v)
		}
		_, err = dec.Token()
		return a, err
	}
	return tok, nil
}

// sseEvent is an event as a browser would dispatch it.
type sseEvent struct {
	name  string
	data  string
	apart bool // there is something without data, a comment say, between it and the event before
}

// parseSSE splits a whole stream by the WHATWG rules, the slow way. A last
// event without its blank line is dispatched too.
func parseSSE(body string) []sseEvent {
	body = strings.TrimPrefix(body, "\xef\xbb\xbf")
	body = strings.ReplaceAll(body, "\r\n", "\n")
	body = strings.ReplaceAll(body, "\r", "\n")
	var events []sseEvent
	var name string
	var data []string
	apart := false
	for line := range strings.SplitSeq(body+"\n\n", "\n") {
		if line == "" {
			if data != nil {
				events = append(events, sseEvent{name, strings.Join(data, "\n"), apart})
			}
			name, data, apart = "", nil, data == nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "data":
			data = append(data, value)
		case "event":
			name = value
		}
	}
	return events
}

// reference meters a whole answer from decoded documents. ok is false where
// the answer has a document that is not JSON: there the meter has more freedom.
type reference struct {
	o       usage.Options
	r       usage.Report
	ok      bool
	final   usage.Counts
	choice  map[int64]usage.Counts
	prompt  map[int64]usage.Counts
	failed  bool
	aborted bool
	done    bool
}

func refer(o usage.Options, body []byte) (usage.Report, bool) {
	o.Choices = max(o.Choices, 1)
	o.Prompts = min(max(o.Prompts, 1), o.Choices)
	f := reference{o: o, ok: true, final: usage.None(), choice: map[int64]usage.Counts{}, prompt: map[int64]usage.Counts{}}
	if o.SSE {
		for _, e := range parseSSE(string(body)) {
			f.event(e)
		}
	} else if len(bytes.Trim(body, " \t\r\n")) > 0 {
		f.body(body)
	}
	return f.report(), f.ok
}

func (f *reference) report() usage.Report {
	r := f.r
	sum := usage.None()
	for _, c := range f.choice {
		plus(&sum.Completion, c.Completion)
		plus(&sum.Reasoning, c.Reasoning)
	}
	for _, p := range f.prompt {
		plus(&sum.Prompt, p.Prompt)
		plus(&sum.Cached, p.Cached)
	}
	r.Counts = f.final
	for _, p := range [][2]*int64{{&r.Counts.Prompt, &sum.Prompt}, {&r.Counts.Completion, &sum.Completion}, {&r.Counts.Cached, &sum.Cached}, {&r.Counts.Reasoning, &sum.Reasoning}} {
		if *p[0] == usage.Unsaid {
			*p[0] = *p[1]
		}
	}
	if f.o.Format == usage.Free {
		r.Counts.Prompt, r.Counts.Completion, r.Seen, r.Final = 0, 0, true, true
	}
	switch {
	case f.failed:
		r.End = usage.Failed
	case f.done && f.aborted:
		r.End = usage.EngineAborted
	case f.done:
		r.End = usage.Done
	}
	return r
}

func plus(sum *int64, v int64) {
	if v != usage.Unsaid {
		*sum = max(*sum, 0) + v
	}
}

func (f *reference) note(a usage.Anomaly) { f.r.Anomalies[a]++ }

func (f *reference) event(e sseEvent) {
	if strings.HasPrefix(e.data, "[") {
		if e.data != "[DONE]" {
			f.note(usage.Malformed)
		} else if f.o.Format != usage.Responses && f.o.Format != usage.Messages {
			f.done = true
		}
		return
	}
	if strings.Trim(e.data, " \t\r\n") == "" {
		return
	}
	v, ok := decode([]byte(e.data))
	if !ok {
		f.ok = false
		return
	}
	o, ok := v.(object)
	if !ok {
		f.note(usage.Malformed)
		return
	}
	d := doc{f: f, index: usage.Unsaid}
	switch f.o.Format {
	case usage.Responses:
		d.response(o, true)
		f.endResponse(&d, e)
	case usage.Messages:
		d.message(o)
		f.text(&d)
		f.take(&d, d.top, 0)
		f.endMessage(&d, e)
	case usage.Chat, usage.Completions, usage.Pooling, usage.Free:
		d.chunk(o)
		f.text(&d)
		f.failed = f.failed || d.failed
		f.aborted = f.aborted || d.aborted
		f.take(&d, d.choices == 0, d.index)
	}
}

func nameOf(d *doc, e sseEvent) string {
	if d.name == "" || e.name == "error" {
		return e.name
	}
	return d.name
}

func (f *reference) endMessage(d *doc, e sseEvent) {
	switch name := nameOf(d, e); {
	case name == "error" || d.failed:
		f.failed = true
	case name == "message_stop":
		f.done = true
	}
}

func (f *reference) endResponse(d *doc, e sseEvent) {
	name := nameOf(d, e)
	if strings.HasPrefix(name, "response.") && strings.HasSuffix(name, ".delta") && !strings.HasSuffix(name, "audio.delta") {
		f.text(d)
	}
	failed := name == "response.failed" || name == "failed" || name == "error"
	completed := name == "response.completed" || name == "response.incomplete"
	f.take(d, failed || completed, 0)
	switch {
	case failed, d.failed, d.status == "failed", d.status == "response.failed":
		f.failed = true
	case completed:
		f.done = true
	}
}

func (f *reference) body(body []byte) {
	v, ok := decode(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	if !ok {
		f.ok = false
		return
	}
	o, ok := v.(object)
	if !ok {
		f.note(usage.Malformed)
		return
	}
	d := doc{f: f, index: usage.Unsaid}
	switch f.o.Format {
	case usage.Responses:
		d.response(o, false)
	case usage.Messages:
		d.message(o)
	case usage.Chat, usage.Completions, usage.Pooling, usage.Free:
		d.chunk(o)
	}
	f.take(&d, true, 0)
	f.r.TextBytes = d.textBytes()
	f.failed = d.failed || d.name == "error" || d.status == "failed" || d.status == "response.failed"
	f.aborted, f.done = d.aborted, true
}

func (f *reference) text(d *doc) {
	if n := d.textBytes(); n > 0 {
		f.r.TextBytes += n
		f.r.Deltas++
	}
}

// take adds the usage of a document.
func (f *reference) take(d *doc, final bool, index int64) {
	c := d.counts
	if !d.usage || d.duplicate {
		return
	}
	if f.o.Format == usage.Messages && c.Prompt != usage.Unsaid {
		for _, part := range []int64{c.Cached, d.created} {
			if part > math.MaxInt64-c.Prompt {
				f.note(usage.Overflow)
				d.bad = true
			} else if part != usage.Unsaid {
				c.Prompt += part
			}
		}
	}
	if c.Prompt == usage.Unsaid && c.Completion == usage.Unsaid {
		return
	}
	if final {
		f.raise(&f.final.Prompt, c.Prompt)
		f.raise(&f.final.Completion, c.Completion)
		f.raise(&f.final.Cached, c.Cached)
		f.raise(&f.final.Reasoning, c.Reasoning)
		f.r.Seen = true
		f.r.Final = f.r.Final || !d.bad
		return
	}
	if index == usage.Unsaid {
		return
	}
	f.r.Seen = true
	f.progress(c, index)
}

func (f *reference) progress(c usage.Counts, index int64) {
	per := int64(f.o.Choices / f.o.Prompts)
	p := min(index/per, int64(f.o.Prompts-1))
	ch, ok := f.choice[index]
	if !ok {
		ch = usage.None()
	}
	f.raise(&ch.Completion, c.Completion)
	f.raise(&ch.Reasoning, c.Reasoning)
	f.choice[index] = ch
	pr, ok := f.prompt[p]
	if !ok {
		pr = usage.None()
	}
	f.raise(&pr.Prompt, c.Prompt)
	f.raise(&pr.Cached, c.Cached)
	f.prompt[p] = pr
}

func (f *reference) raise(to *int64, v int64) {
	switch {
	case v == usage.Unsaid:
	case v < *to:
		f.note(usage.Decreasing)
	default:
		*to = v
	}
}
