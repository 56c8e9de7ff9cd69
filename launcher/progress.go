package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/internal/supervisor"
)

const (
	liveEvery  = 200 * time.Millisecond // on a terminal
	plainEvery = 10 * time.Second       // in a log
	plainWidth = 1000                   // characters
)

// console shows progress: one live line at the bottom of a terminal, or plain lines now
// and then anywhere else. The launcher's log is written through it.
type console struct {
	out      io.Writer
	terminal bool

	mu   sync.Mutex
	live string // guarded by mu; what stands in the last line
}

func newConsole(out io.Writer) *console { return &console{out: out, terminal: isTerminal(out)} }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Write puts whole lines above the live one.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == "" {
		return c.out.Write(p)
	}
	fmt.Fprint(c.out, "\r\x1b[K")
	n, err := c.out.Write(p)
	fmt.Fprint(c.out, c.live)
	return n, err
}

// show replaces the live line; empty removes it.
func (c *console) show(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text == c.live {
		return
	}
	if c.live != "" {
		fmt.Fprint(c.out, "\r\x1b[K")
	}
	c.live = text
	fmt.Fprint(c.out, text)
}

// width is how many characters the live line may have.
func (c *console) width() int {
	if f, ok := c.out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 10 {
			return int(size.Col) - 1
		}
	}
	return 79
}

// follow shows the result of text, with the time since follow was called, until the
// returned function is called.
func (c *console) follow(text func() string) (done func()) {
	began, stop, stopped := time.Now(), make(chan struct{}), make(chan struct{})
	every := plainEvery
	if c.terminal {
		every = liveEvery
	}
	go func() {
		defer close(stopped)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
			}
			line := fmt.Sprintf("%s  %s", time.Since(began).Round(time.Second), text())
			if c.terminal {
				c.show(cut(line, c.width()))
			} else {
				fmt.Fprintln(c, cut(line, plainWidth))
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		if c.terminal {
			c.show("")
		}
	}
}

// cut makes a line of at most n characters and removes control sequences.
func cut(s string, n int) string {
	runes := []rune(strings.ReplaceAll(supervisor.Plain(s), "\t", " "))
	if len(runes) > n {
		runes = append(runes[:n-1], '…')
	}
	return string(runes)
}
