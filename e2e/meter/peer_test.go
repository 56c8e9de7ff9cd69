package meter

import (
	"bufio"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// peer is the tollgate of a test: it listens on the link and says what the test
// wants.
type peer struct {
	t    *testing.T
	lis  net.Listener
	acks bool // every record is acknowledged

	mu    sync.Mutex
	conn  net.Conn
	lines []string // of all connections
}

// listen starts a tollgate in the rig's folder. greeting answers a hello.
func (r *rig) listen(greeting string, acks bool) *peer {
	r.t.Helper()
	lis, err := net.Listen("unix", filepath.Join(r.dir, "run", "meter.sock")) //nolint:noctx // ends with the test
	if err != nil {
		r.t.Fatal(err)
	}
	p := &peer{t: r.t, lis: lis, acks: acks}
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conn = conn
			p.mu.Unlock()
			go p.read(conn, greeting)
		}
	}()
	r.t.Cleanup(p.stop)
	if greeting == "welcome 1" {
		p.wait(".")
	}
	return p
}

func (p *peer) read(conn net.Conn, greeting string) {
	sc := bufio.NewScanner(conn)
	for sc.Scan() {
		line := sc.Text()
		p.mu.Lock()
		p.lines = append(p.lines, line)
		p.mu.Unlock()
		verb, rest, _ := strings.Cut(line, " ")
		lease, _, _ := strings.Cut(rest, " ")
		switch {
		case verb == "hello":
			_, _ = conn.Write([]byte(greeting + "\n"))
		case p.acks && (verb == "e" || verb == "x"):
			_, _ = conn.Write([]byte("a " + lease + "\n"))
		}
	}
}

// stop ends the tollgate as SIGKILL would.
func (p *peer) stop() {
	_ = p.lis.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

func (p *peer) say(line string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		p.t.Fatalf("nobody to say %q to", line)
	}
	if _, err := p.conn.Write([]byte(line + "\n")); err != nil {
		p.t.Errorf("say %q: %v", line, err)
	}
}

// find returns the first line that begins with start, "" where there is none.
func (p *peer) find(start string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if strings.HasPrefix(l, start) {
			return l
		}
	}
	return ""
}

// last returns the last line that begins with start.
func (p *peer) last(start string) (last string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if strings.HasPrefix(l, start) {
			last = l
		}
	}
	return last
}

// wait waits for a line that begins with start.
func (p *peer) wait(start string) string {
	p.t.Helper()
	var found string
	eventually(p.t, "the meter says "+start, func() bool {
		found = p.find(start)
		return found != ""
	})
	return found
}

// count counts the lines that begin with start.
func (p *peer) count(start string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if strings.HasPrefix(l, start) {
			n++
		}
	}
	return n
}

// never checks for a while that no line begins with start.
func (p *peer) never(start string) {
	p.t.Helper()
	time.Sleep(300 * time.Millisecond) // more than a beat
	if l := p.find(start); l != "" {
		p.t.Errorf("the meter said %q", l)
	}
}

// record is the words of an e line, by name.
func record(t *testing.T, line string) map[string]string {
	t.Helper()
	names := strings.Fields("verb lease why end status prompt completion cached reasoning bits text deltas bytes anomalies first last flags details engine")
	words := strings.Split(line, " ")
	if len(words) != len(names) {
		t.Fatalf("%q has %d words", line, len(words))
	}
	m := map[string]string{}
	for i, name := range names {
		m[name] = words[i]
	}
	return m
}
