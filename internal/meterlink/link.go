// Package meterlink is tollgate's end of the link to the meters inside Envoy.
//
// A meter is a library in Envoy that counts, strips and holds the answers that tollgate
// has handed over to it. It dials a Unix socket of tollgate, one connection for each
// Envoy process, and both sides speak in lines of words. The package knows the lines,
// who is connected, and that a record is acknowledged only when it is written. It knows
// no rule of admission: the [Sink] decides what the lines mean for a request.
package meterlink

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// again is between two attempts to write a record that could not be written.
	again = time.Second
	// returns is how long a meter may be away before its Envoy is taken for dead;
	// a live one dials again within 50 ms.
	returns = time.Second
	// absent is how long after our start a meter is waited for that was there before.
	absent = 2 * time.Second
	// recordTimeout bounds one attempt to write a record.
	recordTimeout = 5 * time.Second
	// atOnce is how many records are written at a time: the ledger commits those
	// that wait together.
	atOnce = 256
	// batch is how many running counts are handed on at a time.
	batch = 512
)

// Sink takes what meters say. Its methods are called from several goroutines, for
// one instance in the order in which its meter spoke, except Ended.
type Sink interface {
	// Live tells the running counts of streams.
	Live(instance string, counts []Count)
	// Ended writes a record, which is acknowledged only when it returns nil: the
	// meter holds the end of the answer until then. After an error the same record
	// comes again each second. It may also come again after it was written.
	Ended(ctx context.Context, r Record) error
	// Asked tells that a stream whose key has a quota has used so many tokens and
	// needs to hold more, see [Server.Extend]. It must not block.
	Asked(instance, lease string, used int64)
	// Listed tells that a meter has said after our start which streams it has, live
	// or ended: spoken holds their leases. What it does not know has no meter.
	Listed(instance string, spoken map[string]struct{})
	// Gone tells that an Envoy is not there any more. What it could write of its
	// streams has come before.
	Gone(instance string)
}

// Options are what a [Server] is made of; all must be set but Expected.
type Options struct {
	Sink Sink
	// Dir holds the files in which meters keep records while we are away.
	Dir string
	// Expected are the instances that requests of before our start name.
	Expected []string
	Metrics  *Metrics
	Log      hclog.Logger
}

// Server is the link; [New] makes it and Serve runs it.
type Server struct {
	o       Options
	records *writer

	mu        sync.Mutex
	instances map[string]*instance // guarded by mu; those that were ever connected
	unlisted  map[string]struct{}  // guarded by mu; of Expected
	listed    chan struct{}        // closed when unlisted is empty
	work      sync.WaitGroup       // what Serve waits for
}

// instance is one Envoy process, over all its connections.
type instance struct {
	name    string
	conn    *conn               // guarded by Server.mu, like all that follows; nil while it is away
	listed  bool                // it has said which streams it has
	writing map[string]struct{} // leases whose record is being written
	cuts    []string            // leases to be cut that it was not told of
}

// New makes a link that nobody serves yet.
func New(o Options) *Server {
	s := &Server{
		o: o, instances: map[string]*instance{}, unlisted: map[string]struct{}{}, listed: make(chan struct{}),
	}
	for _, name := range o.Expected {
		s.unlisted[name] = struct{}{}
	}
	if len(s.unlisted) == 0 {
		close(s.listed)
	}
	s.records = newWriter(o.Sink.Ended, func(err error) {
		o.Log.Error("cannot record the end of a request, its meter keeps it", "error", err)
	})
	return s
}

// Serve takes meters in until ctx ends, closes lis, and returns when all that it
// has started has ended: records that are being written are waited for, the others
// stay with their meters.
func (s *Server) Serve(ctx context.Context, lis net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.work.Wait()
	defer cancel()
	s.work.Go(func() { s.records.run(ctx) })
	s.work.Go(func() { s.missing(ctx) })
	s.work.Go(func() {
		<-ctx.Done()
		_ = lis.Close()
	})
	for {
		c, err := lis.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			s.o.Log.Warn("cannot take a meter in", "error", err)
			if !wait(ctx, 50*time.Millisecond) { // out of file descriptors, say
				return nil
			}
			continue
		}
		s.work.Go(func() { s.serve(ctx, c) })
	}
}

// wait is a sleep that ctx ends; it reports whether it was whole.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Connected reports whether the meter of that name is there.
func (s *Server) Connected(name string) bool { return s.conn(name) != nil }

func (s *Server) conn(name string) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.instances[name]; i != nil {
		return i.conn
	}
	return nil
}

// Cut asks a meter to end a stream: at once, or when the meter comes back.
func (s *Server) Cut(name, lease string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch i := s.instances[name]; {
	case i == nil: // gone, with its streams
	case i.conn != nil:
		i.conn.say("c", lease)
	default:
		i.cuts = append(i.cuts, lease)
	}
}

// Extend tells a meter that a stream may use total tokens in all, below 0 for as
// many as it likes. asked is what it had used when it asked, 0 where it did not.
func (s *Server) Extend(name, lease string, total, asked int64) {
	c := s.conn(name)
	if c == nil {
		return
	}
	bound := "-"
	if total >= 0 {
		bound = strconv.FormatInt(total, 10)
	}
	c.say("g", lease, bound, strconv.FormatInt(asked, 10))
}

// AwaitLists returns when every expected meter has listed its streams, or ctx ends.
func (s *Server) AwaitLists(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.listed:
	}
}

// Poll asks all meters for their running counts and returns when they have come,
// or ctx ends.
func (s *Server) Poll(ctx context.Context) {
	s.mu.Lock()
	var asked []<-chan struct{}
	for _, i := range s.instances {
		if i.conn != nil {
			asked = append(asked, i.conn.poll())
		}
	}
	s.mu.Unlock()
	for _, done := range asked {
		select {
		case <-ctx.Done():
			return
		case <-done:
		}
	}
}

// join makes c the connection of its instance; an older one is closed.
func (s *Server) join(c *conn, name string) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.instances[name]
	if i == nil {
		i = &instance{name: name, writing: map[string]struct{}{}}
		s.instances[name] = i
	}
	if i.conn != nil {
		i.conn.close()
	} else {
		s.o.Metrics.connected.Inc()
	}
	i.conn = c
	for _, lease := range i.cuts {
		c.say("c", lease)
	}
	i.cuts = nil
	return i
}

func (s *Server) hasListed(i *instance) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return i.listed
}

// leave ends the connection of an instance, and the instance where it does not
// come back in time.
func (s *Server) leave(ctx context.Context, i *instance, c *conn) {
	s.mu.Lock()
	current := i.conn == c
	if current {
		i.conn = nil
		s.o.Metrics.connected.Dec()
	}
	s.mu.Unlock()
	if !current {
		return
	}
	s.o.Log.Info("a meter is away", "instance", i.name)
	s.work.Go(func() {
		if wait(ctx, returns) && !s.Connected(i.name) {
			s.bury(ctx, i.name)
		}
	})
}

// missing ends what meters have left that were there before our start and are not
// there any more.
func (s *Server) missing(ctx context.Context) {
	if !wait(ctx, absent) {
		return
	}
	names := append(spilled(s.o.Dir), s.o.Expected...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !s.known(name) {
			s.bury(ctx, name)
		}
	}
}

// known reports whether the instance was connected since our start: then it is
// leave that waits for it.
func (s *Server) known(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instances[name] != nil
}

// bury ends what an Envoy has left that is gone.
func (s *Server) bury(ctx context.Context, name string) {
	n, err := s.replay(ctx, name)
	switch {
	case ctx.Err() != nil:
		return // the next tollgate finds the file
	case err != nil:
		s.o.Log.Error("cannot read what a meter has written while we were away", "instance", name, "error", err)
	}
	s.o.Log.Warn("an Envoy is gone", "instance", name, "records", n)
	s.o.Sink.Gone(name)
	s.o.Metrics.gone(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.instances[name]; i != nil && i.conn == nil && len(i.writing) == 0 {
		delete(s.instances, name)
	}
	s.listedBy(name)
}

// listedBy notes that nothing more is to be heard of what an instance had before
// our start. REQUIRES: mu held.
func (s *Server) listedBy(name string) {
	if _, ok := s.unlisted[name]; !ok {
		return
	}
	delete(s.unlisted, name)
	if len(s.unlisted) == 0 {
		close(s.listed)
	}
}
