package meterlink_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/meterlink"
)

// rig is a link on in-memory connections, in a bubble of fake time, with a sink that
// remembers what it was told.
type rig struct {
	*testing.T
	*meterlink.Server
	dir  string
	dial chan net.Conn
	reg  *prometheus.Registry

	mu     sync.Mutex
	broken error // what Ended returns
	heard  []string
}

// with runs test beside a link that expects the given instances.
func with(t *testing.T, expected []string, test func(*rig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { run(t, dir, expected, test) })
}

func run(t *testing.T, dir string, expected []string, test func(*rig)) {
	t.Helper()
	r := &rig{T: t, dir: dir, dial: make(chan net.Conn), reg: prometheus.NewRegistry()}
	r.Server = meterlink.New(meterlink.Options{
		Sink: r, Dir: dir, Expected: expected, Metrics: meterlink.NewMetrics(r.reg), Log: hclog.NewNullLogger(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Serve(ctx, &pipes{dial: r.dial, closed: make(chan struct{})}) }()
	test(r)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// pipes is a listener without a network.
type pipes struct {
	dial   chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dial:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }
func (*pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (r *rig) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, fmt.Sprintf(format, args...))
}

func (r *rig) Live(instance string, counts []meterlink.Count) {
	for _, c := range counts {
		r.note("live %s %s %c %d %d %d", instance, c.Lease, c.State, c.Prompt, c.Completion, c.Bytes)
	}
}

func (r *rig) Ended(_ context.Context, rec meterlink.Record) error {
	r.note("ended %s %s %s", rec.Instance, rec.Lease, rec.Why)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

func (r *rig) Asked(instance, lease string, used int64) {
	r.note("asked %s %s %d", instance, lease, used)
}

func (r *rig) Listed(instance string, spoken map[string]struct{}) {
	r.note("listed %s %d", instance, len(spoken))
}

func (r *rig) Gone(instance string) { r.note("gone %s", instance) }

func (r *rig) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = err
}

// was takes what was heard since the last call; order counts.
func (r *rig) was(want ...string) {
	r.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := strings.Join(r.heard, "\n"); got != strings.Join(want, "\n") {
		r.Errorf("heard\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	r.heard = nil
}

// all takes what was heard since the last call, in any order.
func (r *rig) all() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	heard := r.heard
	r.heard = nil
	return heard
}

// meter is a module as seen from outside.
type meter struct {
	*rig
	net.Conn
	said chan string // lines of tollgate; closed at the end
}

// connect dials and says hello.
func (r *rig) connect(instance string) *meter {
	r.Helper()
	m := r.open()
	m.say("hello 1 " + instance + " 77 0123456789ab")
	m.hears("welcome 1")
	return m
}

func (r *rig) open() *meter {
	ours, theirs := net.Pipe()
	m := &meter{rig: r, Conn: ours, said: make(chan string, 1<<17)}
	r.dial <- theirs
	go func() {
		defer close(m.said)
		lines := bufio.NewScanner(ours)
		for lines.Scan() {
			m.said <- lines.Text()
		}
	}()
	r.Cleanup(func() { _ = ours.Close() })
	return m
}

func (m *meter) say(lines ...string) {
	m.Helper()
	if _, err := m.Write([]byte(strings.Join(lines, "\n") + "\n")); err != nil {
		m.Errorf("say %q: %v", lines, err)
	}
}

// hears takes the lines that tollgate has sent since the last call.
func (m *meter) hears(want ...string) {
	m.Helper()
	got := m.lines()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		m.Errorf("tollgate said %q, want %q", got, want)
	}
}

// lines takes them.
func (m *meter) lines() (got []string) {
	synctest.Wait()
	for len(m.said) > 0 {
		got = append(got, <-m.said)
	}
	return got
}

// hangsUp checks that tollgate has closed the connection.
func (m *meter) hangsUp() {
	m.Helper()
	synctest.Wait()
	for range len(m.said) + 1 {
		select {
		case _, open := <-m.said:
			if !open {
				return
			}
		default:
		}
	}
	m.Error("tollgate goes on with the connection")
}

// ended is the line of a usual end.
func ended(lease string) string {
	return "e " + lease + " end done 200 9 3 -1 -1 SF 17 3 1190 0,0,0,0,0,0,0,0,0 9967 10120 0 via_upstream 127.0.0.1:8000"
}

func (r *rig) spill(instance, text string) {
	r.Helper()
	if err := os.WriteFile(r.spillPath(instance), []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) spillPath(instance string) string {
	return filepath.Join(r.dir, "meter-"+instance+".spill")
}

func (r *rig) spillThere(instance string) bool {
	_, err := os.Stat(r.spillPath(instance))
	return err == nil
}

var errDisk = errors.New("no space left")

func pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

// gathered is a metric of the link, by its name.
func gathered(r *rig, name string) prometheus.Collector {
	families, err := r.reg.Gather()
	if err != nil {
		r.Fatal(err)
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "gathered", Help: "What was gathered."})
	for _, f := range families {
		if f.GetName() == name {
			g.Set(f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue())
			return g
		}
	}
	r.Fatalf("there is no metric %s", name)
	return nil
}
