package replica

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/admission"
)

const (
	// patience is how long an answer of the others is waited for.
	patience = 500 * time.Millisecond
	// entriesWaiting bounds the log entries that wait to be sent on; more are lost.
	entriesWaiting = 8192
	// entriesPerMessage bounds how many go in one message.
	entriesPerMessage = 256
	// answersWaiting bounds the answers to one question that wait.
	answersWaiting = 64
	// messagesWaiting bounds what was heard and not worked on; more is lost.
	messagesWaiting = 1024
)

// Bus carries messages between replicas.
type Bus interface {
	// Name is this replica's.
	Name() string
	// Peers is how many others there seem to be.
	Peers() int
	// Publish sends to one replica, or to all with "", this one included, and returns
	// how many listen.
	Publish(ctx context.Context, to string, message []byte) (heard int, err error)
	// Listen hears until ctx ends; heard must not block.
	Listen(ctx context.Context, heard func(message []byte)) error
}

// Gate is what holds the requests of this replica.
type Gate interface {
	// Holds reports whether this replica answers for a lease: a stream here has
	// claimed it.
	Holds(leaseID string) bool
	Witness(w admission.Witness)
	ProxyGone()
	Live() []admission.Running
	Cancel(requestID string) int
}

// Options are what a [Group] is made of; all must be set but Log.
type Options struct {
	Bus  Bus
	Gate Gate
	// KeysChanged makes this replica read its keys again, because another one has
	// changed them.
	KeysChanged func()
	Log         hclog.Logger
}

// Group is this replica and the others.
type Group struct {
	o       Options
	entries chan admission.Witness
	inbox   chan []byte
	lost    atomic.Uint64
	calls   atomic.Uint64

	mu      sync.Mutex
	waiting map[uint64]chan message // calls of this replica by number; guarded by mu
}

// message is what goes over the bus.
type message struct {
	From string `json:"from"`
	Kind kind   `json:"kind"`
	// Call numbers a question of From; its answer carries the same number.
	Call      uint64              `json:"call,omitempty"`
	Entries   []admission.Witness `json:"entries,omitempty"`
	RequestID string              `json:"request_id,omitempty"`
	Requests  []Running           `json:"requests,omitempty"`
	Cancelled int                 `json:"cancelled,omitempty"`
}

// kind is what a message is about.
type kind string

const (
	entries kind = "entries" // of the proxy's log, for the replica that has the stream
	list    kind = "list"    // a question; answered with Requests
	cancel  kind = "cancel"  // a question; answered with Cancelled
	answer  kind = "answer"
	changed kind = "keys"  // keys have changed
	gone    kind = "proxy" // the proxy's log has broken off
)

// Running is one live request and the replica that has it.
type Running struct {
	admission.Running
	Replica string `json:"replica"`
}

// New returns a group; [Group.Run] must run.
func New(o Options) *Group {
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	return &Group{
		o: o, entries: make(chan admission.Witness, entriesWaiting), inbox: make(chan []byte, messagesWaiting),
		waiting: make(map[uint64]chan message),
	}
}

// Lost is how many log entries and messages were dropped because too many waited.
func (g *Group) Lost() uint64 { return g.lost.Load() }

// Run listens and sends until ctx ends.
func (g *Group) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() {
		_ = g.o.Bus.Listen(ctx, g.hear)
	})
	parts.Go(func() { g.sendEntries(ctx) })
	parts.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case text := <-g.inbox:
				g.take(ctx, text)
			}
		}
	})
	parts.Wait()
	return nil
}

func (g *Group) hear(text []byte) {
	select {
	case g.inbox <- text:
	default:
		g.lost.Add(1)
	}
}

// Witness takes an entry of the proxy's log. It may be about a request that another
// replica has: then that one is told, too.
func (g *Group) Witness(w admission.Witness) {
	ours := w.LeaseID == "" || g.o.Gate.Holds(w.LeaseID)
	g.o.Gate.Witness(w)
	if ours {
		return
	}
	select {
	case g.entries <- w:
	default:
		g.lost.Add(1)
	}
}

// sendEntries sends what waits, in as few messages as there are.
func (g *Group) sendEntries(ctx context.Context) {
	for {
		var batch []admission.Witness
		select {
		case <-ctx.Done():
			return
		case w := <-g.entries:
			batch = append(batch, w)
		}
		for more := true; more && len(batch) < entriesPerMessage; {
			select {
			case w := <-g.entries:
				batch = append(batch, w)
			default:
				more = false
			}
		}
		if _, err := g.send(ctx, "", message{Kind: entries, Entries: batch}); err != nil {
			g.o.Log.Debug("cannot tell the other replicas of log entries", "entries", len(batch), "error", err)
		}
	}
}

func (g *Group) send(ctx context.Context, to string, m message) (heard int, err error) {
	m.From = g.o.Bus.Name()
	text, err := json.Marshal(m)
	if err != nil {
		return 0, fmt.Errorf("write message: %w", err)
	}
	return g.o.Bus.Publish(ctx, to, text)
}

// take works on a message.
func (g *Group) take(ctx context.Context, text []byte) {
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		g.o.Log.Warn("cannot read a message of another replica", "error", err)
		return
	}
	if m.From == g.o.Bus.Name() {
		return
	}
	switch m.Kind {
	case entries:
		for _, w := range m.Entries {
			g.o.Gate.Witness(w)
		}
	case list:
		g.reply(ctx, m, message{Requests: g.own()})
	case cancel:
		g.reply(ctx, m, message{Cancelled: g.o.Gate.Cancel(m.RequestID)})
	case changed:
		g.o.KeysChanged()
	case gone:
		g.o.Gate.ProxyGone()
	case answer:
		g.mu.Lock()
		waits := g.waiting[m.Call]
		g.mu.Unlock()
		select {
		case waits <- m: // nil: too late
		default:
		}
	default: // of a newer version
	}
}

func (g *Group) reply(ctx context.Context, to, with message) {
	with.Kind, with.Call = answer, to.Call
	if _, err := g.send(ctx, to.From, with); err != nil {
		g.o.Log.Debug("cannot answer another replica", "error", err)
	}
}

// own are the live requests of this replica.
func (g *Group) own() []Running {
	name, live := g.o.Bus.Name(), g.o.Gate.Live()
	out := make([]Running, len(live))
	for i, r := range live {
		out[i] = Running{r, name}
	}
	return out
}

// ask asks all others and returns what they answer within [patience]. missing is
// how many did not.
func (g *Group) ask(ctx context.Context, m message) (answers []message, missing int) {
	m.Call = g.calls.Add(1)
	got := make(chan message, answersWaiting)
	g.mu.Lock()
	g.waiting[m.Call] = got
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.waiting, m.Call)
		g.mu.Unlock()
	}()
	heard, _ := g.send(ctx, "", m) // nobody hears what cannot be sent
	late := time.After(patience)
	for waiting := true; waiting && len(answers) < heard-1; { // one is this replica
		select {
		case a := <-got:
			answers = append(answers, a)
		case <-late:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	return answers, max(0, max(heard-1, g.o.Bus.Peers())-len(answers))
}

// Requests lists the live requests of all replicas, in no order. missing is how
// many replicas did not answer.
func (g *Group) Requests(ctx context.Context) (all []Running, missing int) {
	all = g.own()
	answers, missing := g.ask(ctx, message{Kind: list})
	for _, a := range answers {
		all = append(all, a.Requests...)
	}
	return all, missing
}

// Cancel cuts the live requests that carry the id, at whatever replica, and returns
// how many there were. missing is how many replicas did not answer.
func (g *Group) Cancel(ctx context.Context, requestID string) (n, missing int) {
	n = g.o.Gate.Cancel(requestID)
	answers, missing := g.ask(ctx, message{Kind: cancel, RequestID: requestID})
	for _, a := range answers {
		n += a.Cancelled
	}
	return n, missing
}

// ProxyGone tells this replica and the others that the proxy's log has broken off.
func (g *Group) ProxyGone() {
	g.o.Gate.ProxyGone()
	if _, err := g.send(context.Background(), "", message{Kind: gone}); err != nil {
		g.o.Log.Debug("cannot tell the other replicas that the proxy has gone", "error", err)
	}
}

// KeysChanged tells the others that keys have changed.
func (g *Group) KeysChanged(ctx context.Context) {
	if _, err := g.send(ctx, "", message{Kind: changed}); err != nil {
		g.o.Log.Debug("cannot tell the other replicas of changed keys; they look by themselves", "error", err)
	}
}
