package gateway

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"tollgate/internal/admission"
)

const (
	// refusedLines of one address within refusedWindow get a line of their own.
	refusedLines  = 5
	refusedWindow = time.Second
	// refusedAddresses bounds the addresses of one window; all others share one
	// account.
	refusedAddresses = 1024
	// ipv6Client is how much of an IPv6 address names a client, as in its rate.
	ipv6Client = 64
)

// refusals keeps requests that cost their sender nothing from filling the disk:
// of those that a client address sends beyond a few a second only the number is
// written. The metrics count all of them.
type refusals struct {
	lines *slog.Logger

	mu   sync.Mutex
	off  bool                          // guarded by mu
	seen map[netip.Prefix]*refusedOnce // guarded by mu; of the running window
}

// refusedOnce is what one address was refused in one window.
type refusedOnce struct {
	lines int         // that were written
	more  map[int]int // requests without a line, by status
}

func newRefusals(lines *slog.Logger) *refusals {
	return &refusals{lines: lines, seen: map[netip.Prefix]*refusedOnce{}}
}

// cheap reports whether a request cost its sender nothing: nothing was recorded
// for it, and it had no key or was refused.
func cheap(a *admission.Access) bool { return a.Reason == "" && (a.KeyID == "" || a.Status >= 400) }

// counted reports whether the request has been put to an account and gets no line.
func (r *refusals) counted(a *admission.Access) bool {
	if !cheap(a) {
		return false
	}
	client := clientOf(a.ClientAddr)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off {
		return false
	}
	one := r.seen[client]
	if one == nil {
		if len(r.seen) >= refusedAddresses {
			client = netip.Prefix{}
		}
		if one = r.seen[client]; one == nil {
			one = &refusedOnce{}
			r.seen[client] = one
		}
	}
	if one.lines < refusedLines {
		one.lines++
		return false
	}
	if one.more == nil {
		one.more = map[int]int{}
	}
	one.more[a.Status]++
	return true
}

// clientOf is the client that an address belongs to; the zero prefix where it
// cannot be read.
func clientOf(address string) netip.Prefix {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = ipv6Client
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// Run writes the accounts at the end of each window until ctx ends. Afterwards
// every request has its own line again.
func (r *refusals) Run(ctx context.Context) error {
	t := time.NewTicker(refusedWindow)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			r.mu.Lock()
			r.off = true
			r.mu.Unlock()
			r.flush(ctx)
			return nil
		case <-t.C:
			r.flush(ctx)
		}
	}
}

// flush ends the window and writes one line for each address that has more.
func (r *refusals) flush(ctx context.Context) {
	r.mu.Lock()
	ended := r.seen
	if len(ended) > 0 {
		r.seen = map[netip.Prefix]*refusedOnce{}
	}
	r.mu.Unlock()
	for client, one := range ended {
		if len(one.more) == 0 {
			continue
		}
		total := 0
		statuses := make([]any, 0, len(one.more))
		for _, status := range slices.Sorted(maps.Keys(one.more)) {
			total += one.more[status]
			statuses = append(statuses, slog.Int(strconv.Itoa(status), one.more[status]))
		}
		r.lines.LogAttrs(ctx, slog.LevelInfo, "more refused requests",
			slog.String("@module", "tollgate.access"), slog.String("client_addr", named(client)),
			slog.Int("requests", total), slog.Group("status", statuses...))
	}
}

// named is a client as lines name it: its address, or the network that is one
// client; "many" for the account that addresses share.
func named(client netip.Prefix) string {
	switch {
	case !client.IsValid():
		return "many"
	case client.IsSingleIP():
		return client.Addr().String()
	}
	return client.String()
}
