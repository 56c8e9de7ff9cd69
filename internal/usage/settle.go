package usage

// settle takes what a well-formed event said, and returns what is to be done
// with its bytes.
func (m *Meter) settle() edit {
	r := &m.doc.r
	switch m.opts.Format {
	case Responses:
		m.settleResponse(r)
	case Messages:
		m.settleMessage(r)
	case Chat, Completions, Pooling, Free:
		m.countText(r)
		m.settleChunk(r)
		return m.editOf(r)
	}
	return edit{}
}

// settleChunk takes a chunk of chat or completions.
func (m *Meter) settleChunk(r *reading) {
	m.failed = m.failed || r.failed
	m.aborted = m.aborted || r.aborted
	switch {
	case !r.usage || r.duplicate:
	case r.choices == 0:
		m.conclude(&r.tally)
	default:
		m.progress(&r.tally, r.index)
	}
}

// editOf returns what the client must not see of a chunk. One that ends a
// choice waits: vLLM puts its fingerprint on the usage-only chunk behind it
// where there is one, and else on this one. What else is new on a usage-only
// chunk (the metrics of --enable-per-request-metrics) is only ever there.
func (m *Meter) editOf(r *reading) edit {
	if r.failed {
		return edit{}
	}
	var e edit
	if r.usage && !r.duplicate {
		switch {
		case r.choices > 0 && m.opts.StripRunning:
			e = edit{kind: cut, from: r.cutFrom, to: r.cutTo}
		case r.choices == 0 && m.opts.StripFinal:
			return edit{kind: drop, from: m.doc.stamp.from, to: m.doc.stamp.to}
		}
	}
	if m.opts.StripFinal && r.ended && m.doc.stamp.to == 0 {
		e.kind, e.brace = wait, m.doc.brace
	}
	return e
}

// settleResponse takes an event of responses.
func (m *Meter) settleResponse(r *reading) {
	name := m.nameOf(r)
	if name == deltaEvent {
		m.countText(r)
	}
	ends := name == completed || name == failed || name == errorEvent
	if r.usage && !r.duplicate {
		if ends {
			m.conclude(&r.tally)
		} else {
			m.progress(&r.tally, 0)
		}
	}
	switch {
	case name == failed, name == errorEvent, r.failed, r.status == failed:
		m.failed, m.over = true, true
	case name == completed:
		m.done, m.over = true, true
	}
}

// settleMessage takes an event of messages. The usage at the end replaces that
// of the beginning, it is not added.
func (m *Meter) settleMessage(r *reading) {
	m.countText(r)
	if r.usage && !r.duplicate {
		if r.topUsage {
			m.conclude(&r.tally)
		} else {
			m.progress(&r.tally, 0)
		}
	}
	switch name := m.nameOf(r); {
	case name == errorEvent, r.failed:
		m.failed, m.over = true, true
	case name == messageStop:
		m.done, m.over = true, true
	}
}

// nameOf returns the kind of the event by its data, or by its event line where the data
// has none. An event that either of them calls an error is an error.
func (m *Meter) nameOf(r *reading) event {
	f := &m.frame
	if !f.named || f.tooLong {
		return r.event
	}
	if line := eventNamed(f.name[:f.length]); r.event == unnamed || line == errorEvent {
		return line
	}
	return r.event
}

// countText counts the text of an event.
func (m *Meter) countText(r *reading) {
	if n := r.textBytes(); n > 0 {
		m.textBytes += n
		m.deltas++
	}
}
