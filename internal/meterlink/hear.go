package meterlink

import (
	"bufio"
	"errors"
	"io"
	"net"
)

// listen hears what a meter says until it leaves; nil where it just left.
func (s *Server) listen(i *instance, c *conn, lines *bufio.Reader) error {
	e := &ear{s: s, i: i, c: c}
	if !s.hasListed(i) {
		e.spoken = map[string]struct{}{}
	}
	defer e.flush()
	for {
		line, err := readLine(lines)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		if err := e.hear(line); err != nil {
			// Not a reason to hang up: the meter would say the same again.
			s.o.Metrics.malformed.Inc()
			s.o.Log.Debug("a meter's line is not understood", "instance", i.name, "error", err)
		}
	}
}

// ear gathers running counts, so that they are handed on together.
type ear struct {
	s      *Server
	i      *instance
	c      *conn
	counts []Count
	spoken map[string]struct{} // until the first list of the instance is complete
}

func (e *ear) hear(line []byte) error {
	w := words(line)
	switch string(w[0]) {
	case "s":
		count, err := readCount(w[1:])
		if err != nil {
			return err
		}
		e.knows(count.Lease)
		if e.counts = append(e.counts, count); len(e.counts) == batch {
			e.flush()
		}
	case ".":
		e.flush()
		e.complete()
	case "e":
		rec, err := readRecord(w[1:])
		return e.ended(rec, err)
	case "x":
		rec, err := readUnplanned(w[1:])
		return e.ended(rec, err)
	case "q":
		q, err := readQuestion(w[1:])
		if err != nil {
			return err
		}
		e.s.o.Sink.Asked(e.i.name, q.lease, q.used)
	case "i":
		return e.s.o.Metrics.told(e.i.name, w[1:])
	}
	return nil // a newer meter's word
}

// knows notes that the meter has the lease.
func (e *ear) knows(lease string) {
	if e.spoken != nil {
		e.spoken[lease] = struct{}{}
	}
}

func (e *ear) flush() {
	if len(e.counts) > 0 {
		e.s.o.Sink.Live(e.i.name, e.counts)
		e.counts = e.counts[:0]
	}
}

// complete is called at the end of each list.
func (e *ear) complete() {
	e.c.listed()
	if e.spoken == nil {
		return
	}
	e.s.o.Sink.Listed(e.i.name, e.spoken)
	e.spoken = nil
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.i.listed = true
	e.s.listedBy(e.i.name)
}

// ended gives a record to be written and acknowledged. One that is being written
// already came again over a new connection.
func (e *ear) ended(rec Record, err error) error {
	if err != nil {
		return err
	}
	rec.Instance = e.i.name
	e.knows(rec.Lease)
	e.flush() // its own running count comes before
	s, i := e.s, e.i
	s.mu.Lock()
	_, twice := i.writing[rec.Lease]
	i.writing[rec.Lease] = struct{}{}
	s.mu.Unlock()
	if twice {
		return nil
	}
	s.records.add(entry{rec, func() {
		s.mu.Lock()
		delete(i.writing, rec.Lease)
		c := i.conn
		s.mu.Unlock()
		if c != nil {
			c.say("a", rec.Lease)
		}
	}})
	return nil
}
