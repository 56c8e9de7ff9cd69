package stack

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/internal/vllmsim"
)

// Reply is what an [Upstream] answers to one scripted request.
type Reply struct {
	Status      int    // 0: 200
	ContentType string // "": none is sent
	Header      http.Header
	// Pieces are written and flushed one by one, Gap apart.
	Pieces [][]byte
	Gap    time.Duration
	// Write, where it is set, writes the body in place of Pieces.
	Write func(w io.Writer) error
	// End is how it ends: "" properly, "fin" and "rst" by cutting the
	// connection, "hang" not before the client has left. "hang-before" sends
	// nothing at all.
	End string
	// EndAfter passes between the last byte and a cut.
	EndAfter time.Duration
}

// Upstream is an engine for what no real one would send: requests whose body
// carries the mark of a reply get exactly its bytes, all others go to a
// simulator.
type Upstream struct {
	Sim  *vllmsim.Sim
	Addr string

	mu      sync.Mutex
	replies map[string]*Reply
	served  map[string]chan struct{}
	gone    map[string]chan struct{}
	next    atomic.Int64
}

// StartUpstream serves on listen, "" for a free loopback port.
func StartUpstream(tb testing.TB, listen string, o vllmsim.Options) *Upstream {
	tb.Helper()
	if len(o.Models) == 0 {
		o.Models = []string{"tiny"}
	}
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	lis, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", listen)
	if err != nil {
		tb.Fatal(err)
	}
	u := &Upstream{
		Sim: vllmsim.New(o), Addr: lis.Addr().String(),
		replies: map[string]*Reply{}, served: map[string]chan struct{}{}, gone: map[string]chan struct{}{},
	}
	srv := &http.Server{Handler: u, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(lis)
	}()
	tb.Cleanup(func() { _ = srv.Close(); <-done })
	return u
}

var markPattern = regexp.MustCompile(`mark-[0-9]+-`)

// On makes the request that carries the returned mark get r.
func (u *Upstream) On(r *Reply) (mark string) {
	mark = "mark-" + strconv.FormatInt(u.next.Add(1), 10) + "-"
	u.mu.Lock()
	defer u.mu.Unlock()
	u.replies[mark] = r
	u.served[mark], u.gone[mark] = make(chan struct{}), make(chan struct{})
	return mark
}

// Served is closed when the marked request has come and its reply is written
// as far as it goes; Gone, when its client has left or the reply has ended.
func (u *Upstream) Served(mark string) <-chan struct{} { return u.channel(u.served, mark) }

// Gone tells that the reply to a mark is over.
func (u *Upstream) Gone(mark string) <-chan struct{} { return u.channel(u.gone, mark) }

func (u *Upstream) channel(of map[string]chan struct{}, mark string) <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return of[mark]
}

// ServeHTTP implements [http.Handler].
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		u.Sim.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	mark := string(markPattern.Find(body))
	u.mu.Lock()
	reply := u.replies[mark]
	served, gone := u.served[mark], u.gone[mark]
	delete(u.replies, mark)
	u.mu.Unlock()
	if reply == nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		u.Sim.ServeHTTP(w, r)
		return
	}
	defer close(gone)
	u.reply(w, r, reply, served)
}

func (u *Upstream) reply(w http.ResponseWriter, r *http.Request, reply *Reply, served chan struct{}) {
	if reply.End == "hang-before" {
		close(served)
		<-r.Context().Done()
		return
	}
	maps.Copy(w.Header(), reply.Header)
	w.Header()["Content-Type"] = nil
	if reply.ContentType != "" {
		w.Header().Set("Content-Type", reply.ContentType)
	}
	status := reply.Status
	if status == 0 {
		status = http.StatusOK
	}
	w.WriteHeader(status)
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	if reply.Write != nil {
		_ = reply.Write(w)
	}
	for i, p := range reply.Pieces {
		if i > 0 && reply.Gap > 0 {
			pause(r.Context(), reply.Gap) // else the pieces arrive as one
		}
		if _, err := w.Write(p); err != nil {
			break
		}
		_ = rc.Flush()
	}
	close(served)
	end(r.Context(), rc, reply)
}

// end ends an answer as its reply says.
func end(ctx context.Context, rc *http.ResponseController, reply *Reply) {
	switch reply.End {
	case "hang":
		<-ctx.Done()
	case "fin", "rst":
		pause(ctx, reply.EndAfter) // a reset overtakes what is on its way
		conn, _, err := rc.Hijack()
		if err != nil {
			return
		}
		if tcp, ok := conn.(*net.TCPConn); ok && reply.End == "rst" {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// pause waits for d, or until the client has left.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
