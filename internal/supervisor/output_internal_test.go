package supervisor

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLinesOfABusyChildAreReadInBatches(t *testing.T) {
	for _, c := range []struct {
		name  string
		n     int
		since time.Duration
		want  time.Duration
	}{
		{"a line after a long silence", 600, time.Hour, copyMost},
		{"sixty lines a second", 18_000, 500 * time.Millisecond, copyMost},
		{"thousands of lines a second", 300_000, 100 * time.Millisecond, 21 * time.Millisecond},
		{"more than that", 60_000, time.Millisecond, copyLeast},
		{"nothing", 0, 0, copyLeast},
	} {
		if got := patience(c.n, c.since); got < c.want-time.Millisecond || got > c.want+time.Millisecond {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// counted counts the writes that it gets.
type counted struct {
	mu     sync.Mutex
	writes int
	text   bytes.Buffer
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	return c.text.Write(p)
}

func TestEveryLineIsCopiedThoughFewReadsAreMade(t *testing.T) {
	p, err := newPipes()
	if err != nil {
		t.Fatal(err)
	}
	var out counted
	w, err := p.add(&out)
	if err != nil {
		t.Fatal(err)
	}
	ending := make(chan struct{})
	copied := p.copy(ending)
	const lines = 100
	for range lines {
		if _, err := w.WriteString("a line\n"); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Millisecond)
	}
	began := time.Now()
	p.closeWriters()
	close(ending)
	<-copied
	p.close()
	if got := strings.Count(out.text.String(), "a line\n"); got != lines {
		t.Errorf("lines: got %d, want %d", got, lines)
	}
	if out.writes > lines/4 {
		t.Errorf("reads that found something: %d for %d lines", out.writes, lines)
	}
	if took := time.Since(began); took > copyMost {
		t.Errorf("the end was found after %s", took)
	}
}

func TestACopyEndsThoughSomebodyHoldsThePipe(t *testing.T) {
	p, err := newPipes()
	if err != nil {
		t.Fatal(err)
	}
	var out counted
	w, err := p.add(&out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	copied := p.copy(make(chan struct{}))
	<-time.After(20 * time.Millisecond) // it waits by now
	p.expire()
	select {
	case <-copied:
	case <-time.After(10 * time.Second):
		t.Fatal("it is still copying")
	}
	p.close()
	if _, err := w.WriteString("x"); err == nil || !strings.Contains(err.Error(), os.ErrClosed.Error()) && !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("the reader is still open: %v", err)
	}
}
