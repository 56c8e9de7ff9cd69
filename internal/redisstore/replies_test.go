package redisstore_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

// fake is a server that speaks just enough RESP for a store to open. Its
// scripts answer what the test says.
type fake struct {
	t      testing.TB
	lis    net.Listener
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn               // guarded by mu, like all that follows
	answer func(mark string) string // RESP; "" closes the connection
	count  map[string]int           // commands by name, "" is all
}

func startFake(tb testing.TB) *fake {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	f := &fake{t: tb, lis: lis, count: map[string]int{}}
	f.wg.Go(func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(c) })
		}
	})
	tb.Cleanup(func() {
		lis.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			c.Close()
		}
		f.mu.Unlock()
		f.wg.Wait()
	})
	return f
}

// says changes what scripts answer.
func (f *fake) says(answer func(mark string) string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fake) counted(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[name]
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	r := newCommandReader(c)
	for {
		cmd, err := r.next()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.count[cmd[0]]++
		f.count[""]++
		answer := f.answer
		f.mu.Unlock()
		reply := "+OK\r\n"
		switch cmd[0] {
		case "HELLO":
			reply = "%2\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n"
		case "EVALSHA", "EVAL":
			if reply = answer(cmd[4]); reply == "" {
				return
			}
		}
		if _, err := io.WriteString(c, reply); err != nil {
			return
		}
	}
}

// commandReader reads commands as clients write them.
type commandReader struct{ r *bufio.Reader }

func newCommandReader(r io.Reader) *commandReader { return &commandReader{bufio.NewReader(r)} }

func (c *commandReader) number(kind byte) (int, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, fmt.Errorf("got %q, want %q", line, kind)
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}

func (c *commandReader) next() ([]string, error) {
	n, err := c.number('*')
	if err != nil {
		return nil, err
	}
	cmd := make([]string, n)
	for i := range cmd {
		size, err := c.number('$')
		if err != nil {
			return nil, err
		}
		word := make([]byte, size+2)
		if _, err := io.ReadFull(c.r, word); err != nil {
			return nil, err
		}
		cmd[i] = string(word[:size])
	}
	return cmd, nil
}

func bulk(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }

// present is the answer of beat.lua.
func present(mark string) string {
	return "*5\r\n" + bulk(mark) + bulk("ok") + bulk("e") + ":2\r\n:0\r\n"
}

// admission is the answer of acquire.lua.
func admission(mark string) string {
	return "*17\r\n" + bulk(mark) + bulk("ok") + strings.Repeat(":0\r\n", 15)
}

// TestBadRepliesNeverAdmit is part J of the catalogue of bad input: whatever
// Redis answers, a decision is either its reply to this very call or the
// replica's own.
func TestBadRepliesNeverAdmit(t *testing.T) {
	says := func(reply string) func(string) string { return func(string) string { return reply } }
	for name, answer := range map[string]func(mark string) string{
		"WRONGTYPE":     says("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
		"MOVED":         says("-MOVED 3999 127.0.0.1:1\r\n"),
		"ASK":           says("-ASK 3999 127.0.0.1:1\r\n"),
		"LOADING":       says("-LOADING Redis is loading the dataset in memory\r\n"),
		"READONLY":      says("-READONLY You can't write against a read only replica.\r\n"),
		"BUSY":          says("-BUSY Redis is busy running a script.\r\n"),
		"OOM":           says("-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
		"NOAUTH":        says("-NOAUTH Authentication required.\r\n"),
		"NOSCRIPT":      says("-NOSCRIPT No matching script.\r\n"),
		"nil":           says("_\r\n"),
		"nil of RESP2":  says("$-1\r\n"),
		"OK":            says("+OK\r\n"),
		"number":        says(":1\r\n"),
		"empty array":   says("*0\r\n"),
		"another call":  says(admission("another")),
		"no mark":       says("*2\r\n_\r\n" + bulk("ok")),
		"oversized":     func(mark string) string { return "*1001\r\n" + bulk(mark) + bulk("ok") + strings.Repeat(":0\r\n", 999) },
		"cut short":     func(mark string) string { return "*3\r\n" + bulk(mark) + bulk("ok") + ":0\r\n" },
		"no verdict":    func(mark string) string { return "*17\r\n" + bulk(mark) + strings.Repeat(":0\r\n", 16) },
		"odd verdict":   func(mark string) string { return "*17\r\n" + bulk(mark) + bulk("yes") + strings.Repeat(":0\r\n", 15) },
		"words":         func(mark string) string { return "*17\r\n" + bulk(mark) + bulk("ok") + strings.Repeat(bulk("x"), 15) },
		"other epoch":   func(mark string) string { return "*2\r\n" + bulk(mark) + bulk("epoch") },
		"partial":       func(mark string) string { return "*17\r\n" + bulk(mark) + "$2\r\no" },
		"closed":        says(""),
		"bad RESP":      says("?what\r\n"),
		"endless error": says("-" + strings.Repeat("x", 1<<20) + "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t)
			f.says(present)
			store := openAt(t, f.lis.Addr().String(), 100*time.Millisecond)
			f.says(answer)
			// The share of 2 slots among 2 replicas is 1.
			ask := limit.Ask{KeyID: "k", Slot: true, Caps: limit.Caps{Global: 2, Concurrent: 2, Requests: -1, Tokens: -1, Quota: -1}}
			for i, want := range []limit.Denial{limit.Admitted, limit.GlobalSlots} {
				ask.LeaseID = fmt.Sprint(i)
				d, err := store.Acquire(context.Background(), ask)
				if err != nil || d.Denied != want {
					t.Errorf("Acquire %d: got %q, %v, want %q", i, d.Denied, err, want)
				}
				if !store.Partitioned() {
					t.Errorf("Acquire %d: the reply was believed", i)
				}
			}
			// A call that expects no numbers is no less strict.
			if err := store.Claim(context.Background(), "unknown"); err == nil {
				t.Error("Claim of an unknown lease: got no error")
			}
		})
	}
}

// TestADecisionIsOneRoundTrip counts commands. It also shows that the test above
// can fail: the same server with good replies is believed.
func TestADecisionIsOneRoundTrip(t *testing.T) {
	f := startFake(t)
	f.says(present)
	store := openAt(t, f.lis.Addr().String(), time.Second)
	f.says(admission)
	before := f.counted("")
	for i := range 3 {
		d, err := store.Acquire(context.Background(), limit.Ask{LeaseID: fmt.Sprint(i), KeyID: "k", Slot: true, Caps: limit.Caps{Global: 1}})
		if err != nil || d.Denied != limit.Admitted || store.Partitioned() {
			t.Errorf("Acquire: got %q, %v, apart %v, want a shared admission", d.Denied, err, store.Partitioned())
		}
	}
	if got := f.counted("") - before; got != 3 {
		t.Errorf("commands for 3 decisions: got %d", got)
	}
}

// testWriter shows a store's log where a test fails.
type testWriter struct{ tb testing.TB }

func (w testWriter) Write(line []byte) (int, error) {
	w.tb.Log(strings.TrimSpace(string(line)))
	return len(line), nil
}

func openAt(tb testing.TB, address string, timeout time.Duration) *redisstore.Store {
	tb.Helper()
	store, err := redisstore.Open(context.Background(), redisstore.Options{
		Addresses: []string{address}, Timeout: timeout,
		Log: hclog.New(&hclog.LoggerOptions{Output: testWriter{tb}, Level: hclog.Debug}),
	})
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	tb.Cleanup(func() { store.Close() })
	return store
}
