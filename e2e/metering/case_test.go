package metering_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// testCase is one named promise: this request, answered by the engine like
// this, is recorded and delivered like that.
type testCase struct {
	name  string
	route string
	// body is the request; MODEL and MARK in it are replaced.
	body string
	// sends is the engine's answer. Its text is one piece; pieces says otherwise.
	sends  string
	reply  stack.Reply // status, content type, end; the type is chosen by body when empty
	splits splits
	// leaves: the client goes when the engine has sent all that it sends.
	leaves bool
	want   want
	// client is what the client gets; empty: what the engine sent.
	client string
	empty  bool // the client gets no byte at all
}

// want is the record. The zero value of a count is 0; -1 is "not said".
type want struct {
	prompt, completion int64
	cached, reasoning  int64
	reason, quality    string
	// none: no record, because the request is refused with status and param.
	none   bool
	status int
	param  string
	// anomalies by kind, of one run; kinds that are not named must not occur.
	anomalies map[string]int
	// estimated: completion is a lower bound and prompt is not compared.
	estimated bool
	// most is the highest completion count, where more than one is right.
	most int64
}

func (w want) String() string {
	if w.none {
		return fmt.Sprintf("%d, no record", w.status)
	}
	s := fmt.Sprintf("%d + %d %s %s", w.prompt, w.completion, w.reason, w.quality)
	if w.estimated {
		s = fmt.Sprintf("≥ %d %s %s", w.completion, w.reason, w.quality)
	}
	for kind, n := range w.anomalies {
		s += fmt.Sprintf(", %d× %s", n, kind)
	}
	return s
}

// splits say how the engine's bytes are cut up on their way.
type splits uint8

const (
	whole      splits = iota
	bytewise          // also one byte at a time
	sampled           // also in two at every seventh byte boundary (PROOF=1: at every one)
	everywhere        // also in two at every byte boundary
)

// ends of a record.
func done(prompt, completion int64) want {
	return want{prompt: prompt, completion: completion, cached: -1, reasoning: -1, reason: "complete", quality: "exact"}
}

func (w want) as(reason string) want   { w.reason = reason; return w }
func (w want) details(c, r int64) want { w.cached, w.reasoning = c, r; return w }
func (w want) odd(kinds ...string) want {
	w.anomalies = map[string]int{}
	for _, k := range kinds {
		w.anomalies[k]++
	}
	return w
}

func (w want) upTo(most int64) want { w.most = most; return w }

func guess(reason string, completion int64) want {
	return want{completion: completion, cached: -1, reasoning: -1, reason: reason, quality: "estimated", estimated: true}
}

func blocked(status int, param string) want { return want{none: true, status: status, param: param} }

// run plays a case over both protocols and all its splits.
func (s *suite) run(t *testing.T, group string, c testCase) {
	t.Helper()
	t.Run(c.name, func(t *testing.T) {
		before := s.anomalies("")
		kinds := map[string]float64{}
		for k := range c.want.anomalies {
			kinds[k] = s.anomalies(k)
		}
		n := 0
		for _, pieces := range cuts(c.sends, c.splits) {
			proto := s.h1
			if n%2 == 1 {
				proto = s.h2
			}
			n++
			s.play(t, proto, c, pieces)
			if t.Failed() {
				break
			}
		}
		if c.splits >= sampled && !t.Failed() {
			n += s.boundaries(t, c)
		}
		s.checkAnomalies(t, c, n, before, kinds)
		got := ""
		if t.Failed() {
			got = "failed"
		}
		s.report.add(row{group: group, name: c.name, route: c.route, runs: n, expected: c.want.String(), got: got, ok: !t.Failed()})
	})
}

// cuts are the ways in which every case is played: once over each protocol,
// and then as its splits ask.
func cuts(sends string, sp splits) [][][]byte {
	one := [][]byte{[]byte(sends)}
	out := [][][]byte{one, one}
	if sp != whole {
		single := make([][]byte, 0, len(sends))
		for i := range len(sends) {
			single = append(single, []byte(sends[i:i+1]))
		}
		out = append(out, single, single)
	}
	return out
}

// boundaries cuts the engine's bytes in two at every place.
func (s *suite) boundaries(t *testing.T, c testCase) int {
	t.Helper()
	const workers = 8
	at := make(chan int)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range at {
				proto := s.h1
				if w%2 == 1 {
					proto = s.h2
				}
				s.play(t, proto, c, [][]byte{[]byte(c.sends[:i]), []byte(c.sends[i:])})
			}
		})
	}
	n := 0
	step := 1
	if c.splits == sampled && os.Getenv("PROOF") != "1" {
		step = 7
	}
	for i := 1; i < len(c.sends) && !t.Failed(); i += step {
		at <- i
		n++
	}
	close(at)
	wg.Wait()
	return n
}

func (s *suite) checkAnomalies(t *testing.T, c testCase, runs int, before float64, kinds map[string]float64) {
	t.Helper()
	if s.own == nil || t.Failed() {
		return
	}
	total := 0.0
	for k, n := range c.want.anomalies {
		total += float64(n * runs)
		if got := s.anomalies(k) - kinds[k]; got != float64(n*runs) {
			t.Errorf("anomalies of kind %s: counted %v in %d runs, want %d each", k, got, runs, n)
		}
	}
	if got := s.anomalies("") - before; got != total {
		t.Errorf("anomalies: counted %v in %d runs, want %v", got, runs, total)
	}
}

// play sends one request and compares record and bytes.
func (s *suite) play(t *testing.T, client *http.Client, c testCase, pieces [][]byte) {
	t.Helper()
	reply := c.reply
	reply.Pieces = pieces
	if len(pieces) > 1 {
		reply.Gap = 500 * time.Microsecond
		if len(pieces) > 2 {
			reply.Gap = 20 * time.Microsecond
		}
	}
	if reply.ContentType == "" {
		reply.ContentType = "application/json"
		if strings.Contains(c.body, `"stream":true`) {
			reply.ContentType = "text/event-stream; charset=utf-8"
		}
	}
	mark := s.up.On(&reply)
	body := strings.NewReplacer("MODEL", s.model, "MARK", mark).Replace(c.body)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+c.route, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.key)
	if c.leaves {
		go func() {
			<-s.up.Served(mark)
			time.Sleep(30 * time.Millisecond) // the gateway gets to read it
			cancel()
		}()
	}
	resp, err := client.Do(req)
	if c.leaves && err != nil {
		s.abandoned(t, c, mark)
		return
	}
	if err != nil {
		t.Errorf("%s: %v", c.route, err)
		return
	}
	got, rerr := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	id := resp.Header.Get("x-request-id")
	if c.want.none {
		s.checkRefusal(t, c, resp, got, id)
		return
	}
	s.checkBytes(t, c, reply, resp, got, rerr)
	s.checkRecord(t, c, id)
}

// abandoned: the client left before any header came, so that it has no
// request id; the record is found by being the only one that is new.
func (s *suite) abandoned(t *testing.T, c testCase, mark string) {
	t.Helper()
	select {
	case <-s.up.Gone(mark):
	case <-time.After(2 * time.Second):
		t.Error("the engine was not told within 2 s that the client had left")
	}
	if s.own == nil {
		return
	}
	var last string
	for id, r := range s.own.Records() {
		if s.seen(id) {
			continue
		}
		if r.Endpoint == canonical(c.route) {
			last = id
		}
	}
	if last == "" {
		t.Error("an abandoned request has no record")
		return
	}
	s.checkRecord(t, c, last)
}

func (s *suite) checkBytes(t *testing.T, c testCase, reply stack.Reply, resp *http.Response, got []byte, rerr error) {
	t.Helper()
	expected := c.client
	if expected == "" && !c.empty {
		expected = c.sends
	}
	if wantStatus := max(reply.Status, 200); resp.StatusCode != wantStatus {
		t.Errorf("status %d, want %d: %.200s", resp.StatusCode, wantStatus, got)
	}
	if c.leaves || reply.End == "fin" || reply.End == "rst" {
		// What was on its way when the connection went may be lost with it.
		if !strings.HasPrefix(expected, string(got)) {
			t.Errorf("the client got\n%q\nwhich does not begin\n%q", got, expected)
		}
		if rerr == nil && reply.End != "" && !c.leaves {
			t.Errorf("the client saw a clean end of an answer that was cut")
		}
		return
	}
	if rerr != nil {
		t.Errorf("read the answer: %v", rerr)
	}
	if string(got) != expected {
		t.Errorf("the client got\n%q\nwant\n%q", clip(got), clip([]byte(expected)))
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 2000)] }

func (s *suite) checkRecord(t *testing.T, c testCase, id string) {
	t.Helper()
	if s.reader == nil {
		return
	}
	rec, found := s.record(t, id)
	s.saw(id)
	if !found {
		t.Errorf("no record of request %q", id)
		return
	}
	w := c.want
	counts := rec.Prompt == w.prompt && rec.Completion >= w.completion && rec.Completion <= max(w.completion, w.most) && rec.Cached == w.cached && rec.Reasoning == w.reasoning
	if w.estimated {
		counts = rec.Prompt > 0 && rec.Completion >= w.completion
	}
	if !counts || rec.Reason != w.reason || rec.Quality != w.quality {
		t.Errorf("recorded %d + %d (cached %d, reasoning %d) %s %s, want %s (cached %d, reasoning %d)",
			rec.Prompt, rec.Completion, rec.Cached, rec.Reasoning, rec.Reason, rec.Quality, w, w.cached, w.reasoning)
	}
	if s.own != nil && rec.Endpoint != canonical(c.route) {
		t.Errorf("recorded for endpoint %q, want %q", rec.Endpoint, canonical(c.route))
	}
}

func (s *suite) checkRefusal(t *testing.T, c testCase, resp *http.Response, got []byte, id string) {
	t.Helper()
	if resp.StatusCode != c.want.status {
		t.Errorf("status %d, want %d: %.200s", resp.StatusCode, c.want.status, got)
	}
	if c.want.param != "" && !bytes.Contains(got, []byte(c.want.param)) {
		t.Errorf("the refusal does not name %q: %.200s", c.want.param, got)
	}
	if s.reader == nil {
		return
	}
	if rec, found, err := s.reader.Read(t.Context(), id); found || err != nil {
		t.Errorf("a request that was refused by the gateway has a record: %+v %v", rec, err)
	}
}

var aliases = map[string]string{
	"/chat/completions": "/v1/chat/completions", "/completions": "/v1/completions", "/embeddings": "/v1/embeddings",
	"/score": "/v1/score", "/rerank": "/v1/rerank",
}

func canonical(route string) string {
	if c, ok := aliases[route]; ok {
		return c
	}
	return route
}
