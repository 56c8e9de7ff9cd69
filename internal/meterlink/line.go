package meterlink

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/usage"
)

// longestLine is the largest line of the link in bytes, its end included.
const longestLine = 4 << 10

// errLine means that a line of a known kind cannot be read.
var errLine = errors.New("malformed line")

// State is where a live stream stands.
type State byte

// The states of a stream that has not ended for the meter.
const (
	Waiting State = 'w' // for the engine's answer
	Running State = 'r'
	Held    State = 'h' // its end waits for the record
)

// Count is the running use of one live stream. A count is [usage.Unsaid] until
// the engine has said it.
type Count struct {
	Lease              string
	State              State
	Prompt, Completion int64
	Bytes              int64 // of the answer's body
}

// Why says what ended a stream.
type Why string

// What may have ended a stream.
const (
	Ended   Why = "end"     // the answer's own bytes, or the end of its body
	Gone    Why = "gone"    // it was torn down before: the details say by whom
	Refused Why = "refused" // the engine's answer is no 2xx
	Local   Why = "local"   // Envoy answered by itself
	Cut     Why = "cut"     // we asked for it
	Panic   Why = "panic"   // a fault of the meter
	Quota   Why = "quota"   // its allowance was used up
	// Unreadable: the engine's 2xx was neither JSON nor an event stream, so the
	// client got none of it.
	Unreadable Why = "unreadable"
	// Unplanned: the meter never learned what to do with the stream, which was
	// refused, or whose client left. Of the rest of a record only the lease is said.
	Unplanned Why = "unplanned"
)

// Record is how one stream ended, by the meter's account.
type Record struct {
	Instance string // of the meter
	Lease    string
	Why      Why
	Status   int // that the engine, or Envoy, answered with; 0: none
	Report   usage.Report
	Encoded  bool // the body had a content coding and passed unread
	Unread   bool // the report does not know all that Delivered was
	// Delivered is how many bytes of the answer's body were passed on.
	Delivered int64
	// First and Last are when the first and the last byte of the body came, since
	// the request's headers; negative: none came.
	First, Last time.Duration
	Flags       uint64 // Envoy's response flags
	Details     string // Envoy's response code details
	Engine      string // address
}

// words cuts a line into its words; a line of another shape has none.
func words(line []byte) [][]byte { return bytes.Split(line, []byte{' '}) }

// reader reads the words of one line. The first mistake stays.
type reader struct {
	words [][]byte
	bad   bool
}

func (r *reader) next() []byte {
	if len(r.words) == 0 || len(r.words[0]) == 0 {
		r.bad = true
		return nil
	}
	w := r.words[0]
	r.words = r.words[1:]
	return w
}

func (r *reader) text() string { return string(r.next()) }

// escaped is a percent-encoded word; "-" is nothing.
func (r *reader) escaped() string {
	w := r.text()
	if w == "-" {
		return ""
	}
	s, err := url.PathUnescape(w)
	if err != nil {
		r.bad = true
	}
	return s
}

// number is a decimal that is at least least.
func (r *reader) number(least int64) int64 {
	w := r.text()
	n, err := strconv.ParseInt(w, 10, 64)
	if err != nil || n < least || w[0] == '+' {
		r.bad = true
	}
	return n
}

// name is an instance or a lease.
func (r *reader) name() string {
	w := r.text()
	if !isName(w) {
		r.bad = true
	}
	return w
}

// longestName is the largest instance or lease in bytes.
const longestName = 64

// isName reports whether s can be the name of an instance or of a lease, and a part
// of a file's name.
func isName(s string) bool {
	if s == "" || s == "-" || len(s) > longestName {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// err is errLine where a word was wrong or missing.
func (r *reader) err(kind string) error {
	if r.bad {
		return fmt.Errorf("%w: %s", errLine, kind)
	}
	return nil
}

// Words after the known ones are a newer meter's and let alone, in all lines.

// hello is the first line of a connection.
type hello struct {
	version  int64
	instance string
	pid      int64
	build    string
}

func readHello(w [][]byte) (h hello, err error) {
	r := reader{words: w}
	h.version, h.instance, h.pid, h.build = r.number(0), r.name(), r.number(0), r.text()
	return h, r.err("hello")
}

func readCount(w [][]byte) (c Count, err error) {
	r := reader{words: w}
	c.Lease = r.name()
	if s := r.next(); len(s) == 1 && strings.IndexByte("wrh", s[0]) >= 0 {
		c.State = State(s[0])
	} else {
		r.bad = true
	}
	c.Prompt, c.Completion, c.Bytes = r.number(usage.Unsaid), r.number(usage.Unsaid), r.number(0)
	return c, r.err("s")
}

// ends are the words for how an answer has ended by its own bytes.
var ends = map[string]usage.End{"done": usage.Done, "open": usage.Open, "failed": usage.Failed, "engine_abort": usage.EngineAborted}

func readUnplanned(w [][]byte) (Record, error) {
	r := reader{words: w}
	rec := Record{Lease: r.name(), Why: Unplanned, Report: usage.Report{Counts: usage.None()}, First: -1, Last: -1}
	return rec, r.err("x")
}

// question asks for more of a key's quota.
type question struct {
	lease string
	used  int64
}

func readQuestion(w [][]byte) (q question, err error) {
	r := reader{words: w}
	q.lease, q.used = r.name(), r.number(0)
	return q, r.err("q")
}

func readRecord(w [][]byte) (rec Record, err error) {
	r := reader{words: w}
	rec.Lease = r.name()
	rec.Why = Why(r.text())
	switch rec.Why {
	case Ended, Gone, Refused, Local, Cut, Panic, Quota, Unreadable:
	case Unplanned: // never said so
		r.bad = true
	default:
		r.bad = true
	}
	end, ok := ends[r.text()]
	r.bad = r.bad || !ok
	rec.Report.End = end
	rec.Status = int(min(r.number(0), 999))
	counts := &rec.Report.Counts
	for _, n := range []*int64{&counts.Prompt, &counts.Completion, &counts.Cached, &counts.Reasoning} {
		*n = r.number(usage.Unsaid)
	}
	bits := r.text()
	rec.Report.Seen, rec.Report.Final = strings.Contains(bits, "S"), strings.Contains(bits, "F")
	rec.Encoded, rec.Unread = strings.Contains(bits, "E"), strings.Contains(bits, "U")
	rec.Report.TextBytes, rec.Report.Deltas, rec.Delivered = r.number(0), r.number(0), r.number(0)
	r.anomalies(&rec.Report.Anomalies)
	rec.First, rec.Last = micros(r.number(-1)), micros(r.number(-1))
	rec.Flags = uint64(r.number(0)) //nolint:gosec // not below zero
	rec.Details, rec.Engine = r.escaped(), r.escaped()
	return rec, r.err("e")
}

// anomalies reads a list of counts, one for each kind of [usage.Anomaly].
func (r *reader) anomalies(a *[usage.Anomalies]uint32) {
	list := strings.Split(r.text(), ",")
	if len(list) != len(a) {
		r.bad = true
		return
	}
	for i, s := range list {
		n, err := strconv.ParseUint(s, 10, 32)
		r.bad = r.bad || err != nil
		a[i] = uint32(n)
	}
}

func micros(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Microsecond)
	return time.Duration(min(n, most)) * time.Microsecond
}
