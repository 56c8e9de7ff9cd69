// Package apikey identifies callers: it parses a credential, finds its key by the
// digest, and loads, watches and edits the key file (docs/keys.md).
//
// No secret leaves this package, except the new one that [File.Add] and [File.Rotate]
// return. Other packages see a [Key] and its id.
package apikey

import (
	"slices"
	"time"

	"tollgate/internal/limit"
)

// Period is how often a quota starts again, in UTC.
type Period string

// The quota periods.
const (
	Total Period = "total" // never
	Day   Period = "day"
	Month Period = "month"
)

// Name is the name of the running period at t: "total", "2026-11-24" or
// "2026-11". An unknown period is "total".
func (p Period) Name(t time.Time) string {
	switch p {
	case Day:
		return t.UTC().Format("2006-01-02")
	case Month:
		return t.UTC().Format("2006-01")
	case Total:
	}
	return string(Total)
}

// Start is the beginning of the running period at t; zero for [Total].
func (p Period) Start(t time.Time) time.Time {
	y, m, d := t.UTC().Date()
	switch p {
	case Day:
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	case Month:
		return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
	case Total:
	}
	return time.Time{}
}

// End is when the next period begins, as seen at t; zero for [Total].
func (p Period) End(t time.Time) time.Time {
	y, m, d := t.UTC().Date()
	switch p {
	case Day:
		return time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
	case Month:
		return time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
	case Total:
	}
	return time.Time{}
}

// AdminUser is the user whose keys open /admin and /metrics.
const AdminUser = "admin"

// LauncherUser is the user whose keys may name their own host's engine under
// /admin/engines, and take it out again.
const LauncherUser = "launcher"

// DefaultSecret is the public key that a missing key file is written with. It
// is honoured only under [Circumstances.Local].
const DefaultSecret = "sk-default-key-change-me" //nolint:gosec // public on purpose

// DefaultWarning is said at every start while the default key is honoured.
const DefaultWarning = "It works from this machine only, until a key of your own exists. Behind a proxy on this machine that only passes requests on, the whole world is this machine: disable it first, with tollgate keys disable default"

// Key describes one identity. It must not be changed.
type Key struct {
	ID          string
	User        string
	Quota       int64 // tokens per period; [limit.Unlimited]
	QuotaPeriod Period
	Enabled     bool
	Models      []string // names that it may use; nil = all
	// Limits override the global per-key ones where the pointer is set; a
	// pointer to [limit.Unlimited] lifts the global limit.
	Concurrent, RequestsPerMinute, TokensPerMinute *int64
	NotBefore, ExpiresAt                           time.Time // zero = no bound
	// Default marks the public default key.
	Default bool
	// Drain means that live streams of the disabled key may finish.
	Drain bool
	// TrustEndUser means that the holder of the key serves several people and says for
	// which of them a request is ([admission.Arrival]).
	TrustEndUser bool
	Note         string // for people; never interpreted
}

// Launcher reports whether the key is one of a launcher on a host with an engine.
func (k *Key) Launcher() bool { return k.User == LauncherUser }

// Admin reports whether the key opens /admin.
func (k *Key) Admin() bool { return k.User == AdminUser }

// Allows reports whether the key may use one of the names. A key that may use an alias
// may use the models behind it, under the alias only.
func (k *Key) Allows(names ...string) bool {
	return k.Models == nil || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(k.Models, n) })
}

// Caps are the limits of this key at t, given the global per-key ones.
func (k *Key) Caps(global limit.Caps, t time.Time) limit.Caps {
	c := global
	for _, o := range []struct {
		to   *int64
		from *int64
	}{{&c.Concurrent, k.Concurrent}, {&c.Requests, k.RequestsPerMinute}, {&c.Tokens, k.TokensPerMinute}} {
		if o.from != nil {
			*o.to = *o.from
		}
	}
	c.Quota, c.QuotaPeriod = k.Quota, k.QuotaPeriod.Name(t)
	return c
}
