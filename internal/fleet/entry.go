package fleet

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tollgate/internal/vllm"
)

// Origin says who named an engine.
type Origin string

// Origins.
const (
	FromFile     Origin = "file"
	FromAPI      Origin = "api"
	FromLauncher Origin = "launcher"
)

// Entry is an engine as somebody named it.
type Entry struct {
	Address string    `json:"address"` // host:port in its canonical spelling
	Weight  int       `json:"weight"`  // share of the load, relative; at least 1
	Origin  Origin    `json:"origin"`
	By      string    `json:"by,omitempty"` // id of the key that named it, of an engine that came at run time
	Since   time.Time `json:"since"`
	// Line of the configuration file that names it; 0 where none does.
	Line int `json:"-"`
}

const (
	// silence is how long a launcher may say nothing of its engine.
	silence = 10 * time.Second
	// remembered is how long the models of an engine whose launcher is silent are
	// known: a request for them is told to come back, and not that there is no such model.
	remembered = time.Hour
	// resolveEvery is between two looks at a name's addresses.
	resolveEvery = 5 * time.Second
	// lookupTimeout bounds one.
	lookupTimeout = 2 * time.Second
)

// entry is an [Entry] with the engines that its address leads to.
type entry struct {
	Entry
	members  []*member
	draining bool
	put      time.Time // when it was named last
	lost     time.Time // when its launcher fell silent; zero: it has not
	err      string    // why its name leads nowhere
	stop     context.CancelFunc
}

// watch begins to look at the engines of an entry, where the fleet runs; the caller
// holds the lock.
func (f *Fleet) watch(e *entry) {
	if f.ctx == nil || e.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(f.ctx)
	e.stop, e.members = cancel, nil
	host, _, _ := net.SplitHostPort(e.Address) // checked when it was named
	if ip, err := netip.ParseAddr(host); err == nil {
		f.lead(ctx, e, []netip.Addr{ip})
		return
	}
	f.running.Go(func() { f.resolve(ctx, e, host) })
}

// unwatch ends that; the caller holds the lock.
func (f *Fleet) unwatch(e *entry) {
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
}

// resolve follows the addresses of a name until ctx ends.
func (f *Fleet) resolve(ctx context.Context, e *entry, host string) {
	t := time.NewTicker(resolveEvery)
	defer t.Stop()
	for {
		lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
		ips, err := net.DefaultResolver.LookupNetIP(lookup, "ip", host)
		cancel()
		if ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		switch {
		case err == nil && len(ips) > 0:
			e.err = ""
			f.lead(ctx, e, family(ips))
		case len(e.members) == 0:
			e.err = "its name does not resolve"
		}
		f.publish()
		f.mu.Unlock()
		f.announce()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// family are the IPv4 addresses, or all where there is none of these: engines that
// listen on both would count twice.
func family(ips []netip.Addr) []netip.Addr {
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	ips = slices.Compact(ips)
	if four := slices.DeleteFunc(slices.Clone(ips), func(a netip.Addr) bool { return !a.Is4() }); len(four) > 0 {
		return four
	}
	return ips
}

// lead makes the members of an entry those of these addresses; the caller holds the
// lock.
func (f *Fleet) lead(ctx context.Context, e *entry, ips []netip.Addr) {
	_, port, _ := net.SplitHostPort(e.Address)
	var members []*member
	for _, ip := range ips {
		endpoint := net.JoinHostPort(ip.String(), port)
		i := slices.IndexFunc(e.members, func(m *member) bool { return m.endpoint == endpoint })
		if i >= 0 {
			members = append(members, e.members[i])
			continue
		}
		run, stop := context.WithCancel(ctx)
		m := &member{
			fleet: f, entry: e, endpoint: endpoint, kick: make(chan struct{}, 1), stop: stop,
			client: vllm.New(vllm.Options{Address: endpoint, KeyFile: f.o.APIKeyFile}),
		}
		members = append(members, m)
		f.running.Go(func() { m.run(run) })
	}
	for _, m := range e.members {
		if !slices.Contains(members, m) {
			m.stop()
		}
	}
	e.members = members
	for _, m := range members {
		m.address = e.Address
		if len(members) > 1 {
			m.address = m.endpoint
		}
	}
}

// settled reports whether all that the entry leads to was asked once.
func (e *entry) settled() bool {
	return (len(e.members) > 0 || e.err != "") && !slices.ContainsFunc(e.members, func(m *member) bool { return !m.asked })
}

// absent stands for an entry whose address leads to nothing yet.
func (e *entry) absent() *Engine {
	why := e.err
	if why == "" {
		why = "not asked yet"
	}
	endpoint := e.Address
	if host, _, _ := net.SplitHostPort(e.Address); strings.ContainsFunc(host, func(r rune) bool { return r > '9' && r != ':' }) {
		endpoint = "" // a name is no endpoint
	}
	return &Engine{Address: e.Address, Endpoint: endpoint, Weight: e.Weight, Draining: e.draining, Error: why, Named: e.Entry, load: &load{}}
}
