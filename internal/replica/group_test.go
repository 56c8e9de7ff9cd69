package replica_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/replica"
)

// hub is a bus in memory.
type hub struct {
	mu   sync.Mutex
	away bool
	ears map[string]func([]byte)
}

type end struct {
	*hub
	name string
}

func (e end) Name() string { return e.name }

func (e end) Peers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.ears) - 1
}

func (e end) Publish(_ context.Context, to string, m []byte) (n int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.away {
		return 0, errors.New("away")
	}
	for name, heard := range e.ears {
		if (to == "" || to == name) && heard != nil {
			heard(m)
			n++
		}
	}
	return n, nil
}

func (e end) Listen(ctx context.Context, heard func([]byte)) error {
	e.mu.Lock()
	e.ears[e.name] = heard
	e.mu.Unlock()
	<-ctx.Done()
	return nil
}

// gate is a replica's requests.
type gate struct {
	mu        sync.Mutex
	held      []string // leases; the request's id is that of its lease
	witnessed []string
	reloads   atomic.Int64
}

func (g *gate) Holds(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.held, id)
}

func (g *gate) Witness(w admission.Witness) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.witnessed = append(g.witnessed, w.LeaseID)
}

func (g *gate) ProxyGone() { g.reloads.Add(100) }

func (g *gate) Live() (out []admission.Running) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range g.held {
		out = append(out, admission.Running{LeaseID: id, RequestID: id})
	}
	return out
}

func (g *gate) Cancel(id string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.held)
	g.held = slices.DeleteFunc(g.held, func(h string) bool { return h == id })
	return n - len(g.held)
}

func (g *gate) saw() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.witnessed)
}

// rig is three replicas that hold a lease each.
func rig(t *testing.T) (*hub, []*gate, []*replica.Group) {
	t.Helper()
	h := &hub{ears: map[string]func([]byte){}}
	var gates []*gate
	var groups []*replica.Group
	for i := range 3 {
		g := &gate{held: []string{fmt.Sprint("lease-", i)}}
		group := replica.New(replica.Options{Bus: end{h, fmt.Sprint("r", i)}, Gate: g, KeysChanged: func() { g.reloads.Add(1) }})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = group.Run(ctx) }()
		t.Cleanup(func() { stop(); <-ended })
		gates, groups = append(gates, g), append(groups, group)
	}
	synctest.Wait()
	return h, gates, groups
}

func TestALogEntryReachesItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gates, groups := rig(t)
		groups[0].Witness(admission.Witness{LeaseID: "lease-0"}) // its own
		groups[0].Witness(admission.Witness{LeaseID: "lease-2"})
		groups[0].Witness(admission.Witness{}) // refused: it has no stream
		synctest.Wait()
		for i, want := range [][]string{{"lease-0", "lease-2", ""}, {"lease-2"}, {"lease-2"}} {
			if got := gates[i].saw(); !slices.Equal(got, want) {
				t.Errorf("replica %d: got %q, want %q", i, got, want)
			}
		}
	})
}

func TestOneListShowsAllAndOneCallCancelsAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, gates, groups := rig(t)
		all, missing := groups[1].Requests(t.Context())
		var got []string
		for _, r := range all {
			got = append(got, r.Replica+" "+r.LeaseID)
		}
		slices.Sort(got)
		if want := []string{"r0 lease-0", "r1 lease-1", "r2 lease-2"}; !slices.Equal(got, want) || missing != 0 {
			t.Errorf("got %q with %d missing, want %q", got, missing, want)
		}
		if n, missing := groups[1].Cancel(t.Context(), "lease-2"); n != 1 || missing != 0 || len(gates[2].held) != 0 {
			t.Errorf("Cancel: got %d with %d missing", n, missing)
		}
		if n, _ := groups[1].Cancel(t.Context(), "lease-2"); n != 0 {
			t.Errorf("Cancel again: got %d", n)
		}

		h.mu.Lock()
		h.ears["r0"] = nil // dead, and nobody has noticed
		h.mu.Unlock()
		begun := time.Now()
		if all, missing := groups[1].Requests(t.Context()); len(all) != 1 || missing != 1 || time.Since(begun) > time.Second {
			t.Errorf("with a dead replica: %d requests, %d missing after %v, want 1 and 1", len(all), missing, time.Since(begun))
		}
		h.mu.Lock()
		h.away = true
		h.mu.Unlock()
		begun = time.Now()
		if all, missing := groups[1].Requests(t.Context()); len(all) != 1 || missing != 2 || time.Since(begun) > 0 {
			t.Errorf("without a bus: %d requests, %d missing after %v, want its own at once", len(all), missing, time.Since(begun))
		}
	})
}

func TestTheOthersReadChangedKeysAndHearOfTheProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gates, groups := rig(t)
		groups[0].KeysChanged(t.Context())
		groups[0].ProxyGone()
		synctest.Wait()
		for i, want := range []int64{100, 101, 101} {
			if got := gates[i].reloads.Load(); got != want {
				t.Errorf("replica %d: read %d times, want %d", i, got, want)
			}
		}
	})
}

func TestNonsenseOnTheBusIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, groups := rig(t)
		for _, text := range []string{"", "{", `{"kind":"entries","entries":3}`, `{"kind":"tomorrow"}`, `{"kind":"answer","call":99}`} {
			if _, err := (end{h, "stranger"}).Publish(t.Context(), "", []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if all, _ := groups[0].Requests(t.Context()); len(all) != 3 {
			t.Errorf("got %d requests, want 3", len(all))
		}
	})
}
