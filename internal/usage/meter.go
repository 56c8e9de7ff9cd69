package usage

import "math"

// Meter reads one answer while it passes. It is used by one goroutine. What it
// holds is bounded: a few hundred bytes, 32 bytes a choice, and where it strips
// the event that is still incomplete and the one before it where that waits (up
// to 1 MiB each, see [Oversize]).
type Meter struct {
	opts  Options
	began bool
	blind bool // the body cannot be read: all bytes pass
	bom   int  // bytes of a byte order mark seen at the start of a JSON body

	doc    document
	line   line
	frame  frame
	editor editor

	failed  bool // an error was met
	aborted bool // a finish_reason was "abort"
	done    bool // the answer is complete
	over    bool // nothing that matters follows
	read    bool // an event that is JSON was read
	short   bool // a JSON body broke off

	running   Counts
	final     Counts
	seen      bool
	finished  bool // the final usage was read
	textBytes int64
	deltas    int64
	choices   []choiceCounts
	prompts   []promptCounts
}

// choiceCounts is the last running usage of a choice.
type choiceCounts struct{ completion, reasoning int64 }

// promptCounts is the last running usage of a prompt.
type promptCounts struct{ prompt, cached int64 }

// NewMeter returns a meter for one answer.
func NewMeter(o Options) *Meter {
	m := new(Meter)
	m.Reset(o)
	return m
}

// Reset makes the meter ready for another answer, in the memory that it has.
func (m *Meter) Reset(o Options) {
	o.Choices = max(o.Choices, 1)
	o.Prompts = min(max(o.Prompts, 1), o.Choices)
	choices, prompts, ed, begin := m.choices, m.prompts, m.editor, m.doc.memo.begin[:0]
	*m = Meter{opts: o, running: None(), final: None(), blind: o.Encoded}
	m.choices = grown(choices, o.Choices)
	for i := range m.choices {
		m.choices[i] = choiceCounts{Unsaid, Unsaid}
	}
	m.prompts = grown(prompts, o.Prompts)
	for i := range m.prompts {
		m.prompts[i] = promptCounts{Unsaid, Unsaid}
	}
	m.doc.root, m.doc.choices = root(o), int64(o.Choices)
	m.doc.memo.begin = begin
	m.doc.reset()
	strips := o.SSE && (o.Format == Chat || o.Format == Completions) && (o.StripFinal || o.StripRunning)
	m.editor.reset(ed, strips)
	if o.Encoded {
		m.doc.note(Encoded)
	}
	if o.Format == Free {
		m.running.Prompt, m.running.Completion = 0, 0
	}
}

// grown returns a slice of n elements, in the memory of s where that is enough.
func grown[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n)
}

// Feed takes the next bytes of the body and returns the bytes to forward.
// With changed false these are chunk itself. Otherwise they are valid until the
// next Feed, and may be none. Feed does not keep chunk. last says that the body
// ends with it: an event without its blank line counts then, and held bytes are
// flushed. Concatenated, the bytes to forward do not depend on how the body was
// cut into chunks, nor does the report.
func (m *Meter) Feed(chunk []byte, last bool) (forward []byte, changed bool) {
	if !m.began && len(chunk) > 0 {
		m.began = true
		// What gzip and zstd begin with begins neither JSON nor an event stream.
		if !m.blind && (chunk[0] == 0x1f || chunk[0] == 0x28) {
			m.blind = true
			m.doc.note(Encoded)
		}
	}
	switch {
	case m.blind:
		return chunk, false
	case !m.opts.SSE:
		m.body(chunk, last)
		return chunk, false
	}
	m.editor.begin()
	m.lines(chunk)
	if last {
		m.eof(chunk)
	}
	if m.editor.end(chunk, last) {
		m.doc.note(Oversize)
	}
	return m.editor.result(chunk)
}

// body reads the next bytes of a JSON body.
func (m *Meter) body(chunk []byte, last bool) {
	d := &m.doc
	taken := d.r.usage
	d.scan(m.behindMark(chunk), 0)
	r := &d.r
	switch {
	case r.duplicate:
		m.final, m.seen, m.finished = None(), false, false
	case r.usage && !taken:
		m.conclude(&r.tally)
	}
	switch {
	case r.complete && !m.over:
		m.failed = r.failed || r.event == errorEvent || r.status == failed
		m.aborted, m.done, m.over = r.aborted, true, true
	case last && !r.complete && d.state != atStart && d.state != broken:
		m.short = true
		d.fail()
	}
}

// behindMark returns chunk without the byte order mark that a body may begin with.
func (m *Meter) behindMark(chunk []byte) []byte {
	for m.bom < len(byteOrderMark) && len(chunk) > 0 {
		if chunk[0] != byteOrderMark[m.bom] {
			m.bom = len(byteOrderMark)
			break
		}
		m.bom++
		chunk = chunk[1:]
	}
	return chunk
}

// Ended reports whether the bytes fed so far contain the end of the answer, good or
// bad. The caller must settle the request before it forwards the chunk that brought the
// end.
func (m *Meter) Ended() bool { return m.over }

// Unread reports whether what was fed so far is no answer that anybody could
// read: its tokens can only be guessed from its size.
func (m *Meter) Unread() bool {
	if m.seen {
		return false // it has an account, whatever else is in it
	}
	d := &m.doc
	switch {
	case m.blind:
		return true
	case m.opts.SSE:
		return !m.read && !m.done || m.textBytes == 0 && d.anomalies[Malformed] > 0
	case d.state == broken && !m.short:
		return true
	}
	return d.r.complete && d.r.textBytes() == 0 && !m.failed
}

// Follows reports whether the body is read event by event, so that its use is
// known while it passes.
func (m *Meter) Follows() bool { return m.opts.SSE && !m.blind }

// Report returns what is known now. It is cheap enough for every chunk.
func (m *Meter) Report() Report {
	r := Report{
		Counts:    m.final,
		Seen:      m.seen,
		Final:     m.finished,
		TextBytes: m.textBytes,
		Deltas:    m.deltas,
		Anomalies: m.doc.anomalies,
	}
	if !m.opts.SSE {
		r.TextBytes = m.doc.r.textBytes()
	}
	orElse(&r.Counts.Prompt, m.running.Prompt)
	orElse(&r.Counts.Completion, m.running.Completion)
	orElse(&r.Counts.Cached, m.running.Cached)
	orElse(&r.Counts.Reasoning, m.running.Reasoning)
	if m.opts.Format == Free {
		r.Seen, r.Final = true, true // nothing to be said, so nothing is missing
	}
	switch {
	case m.failed:
		r.End = Failed
	case m.done && m.aborted:
		r.End = EngineAborted
	case m.done:
		r.End = Done
	}
	return r
}

// orElse sets a count that was not said.
func orElse(count *int64, v int64) {
	if *count == Unsaid {
		*count = v
	}
}

// conclude takes the engine's final usage. Fields that it leaves out stay what
// the running usage said.
func (m *Meter) conclude(t *tally) {
	c, ok := m.counts(t)
	if !ok {
		return
	}
	m.raise(&m.final.Prompt, c.Prompt)
	m.raise(&m.final.Completion, c.Completion)
	m.raise(&m.final.Cached, c.Cached)
	m.raise(&m.final.Reasoning, c.Reasoning)
	m.seen = true
	m.finished = m.finished || !t.bad
}

// progress takes running usage of the one choice whose index is index.
func (m *Meter) progress(t *tally, index int64) {
	c, ok := m.counts(t)
	if !ok || index == Unsaid {
		return
	}
	m.seen = true
	ch := &m.choices[index]
	m.add(&m.running.Completion, &ch.completion, c.Completion)
	m.add(&m.running.Reasoning, &ch.reasoning, c.Reasoning)
	p := min(int(index)/(m.opts.Choices/m.opts.Prompts), m.opts.Prompts-1)
	pr := &m.prompts[p]
	m.add(&m.running.Prompt, &pr.prompt, c.Prompt)
	m.add(&m.running.Cached, &pr.cached, c.Cached)
}

// counts returns what t says; not ok when that is nothing.
func (m *Meter) counts(t *tally) (c Counts, ok bool) {
	c = Counts{Prompt: t.value[promptField], Completion: t.value[completionField], Cached: t.value[cachedField], Reasoning: t.value[reasoningField]}
	if m.opts.Format == Messages && c.Prompt != Unsaid {
		// The three parts do not overlap there.
		for _, part := range [...]int64{t.value[cachedField], t.value[createdField]} {
			switch {
			case part == Unsaid:
			case c.Prompt > math.MaxInt64-part:
				m.doc.note(Overflow)
				t.bad = true
			default:
				c.Prompt += part
			}
		}
	}
	return c, c.Prompt != Unsaid || c.Completion != Unsaid
}

// raise sets a count, unless it would decrease.
func (m *Meter) raise(count *int64, v int64) {
	switch {
	case v == Unsaid:
	case v < *count:
		m.doc.note(Decreasing)
	default:
		*count = v
	}
}

// add sets one part of a sum, unless it would decrease.
func (m *Meter) add(sum, part *int64, v int64) {
	switch {
	case v == Unsaid:
		return
	case v < *part:
		m.doc.note(Decreasing)
		return
	}
	more := v - max(*part, 0)
	if max(*sum, 0) > math.MaxInt64-more {
		m.doc.note(Overflow)
		return
	}
	*sum = max(*sum, 0) + more
	*part = v
}
