// Package media decides which URLs of pictures, sounds and films an engine may be told
// to fetch. It checks the text of a URL only; it does not resolve names.
package media

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// Policy says what may be fetched. It is never changed and safe for concurrent
// use; nil and the zero value let every public name and address pass.
type Policy struct {
	names    []string // as [host] returns them
	prefixes []netip.Prefix
}

// New reads what request.media_domains lists: names (exactly, without those
// below them), addresses, prefixes as 10.1.0.0/16. The error names the first
// entry that is none of them by its index.
func New(list []string) (*Policy, error) {
	p := new(Policy)
	for i, entry := range list {
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			p.prefixes = append(p.prefixes, prefix.Masked())
			continue
		}
		name, addr, err := host(entry)
		switch {
		case err != nil, strings.ContainsAny(entry, "/:@[]") && !addr.IsValid():
			return nil, &EntryError{Index: i}
		case addr.IsValid():
			p.prefixes = append(p.prefixes, netip.PrefixFrom(addr, addr.BitLen()))
		default:
			p.names = append(p.names, name)
		}
	}
	return p, nil
}

// EntryError says which entry of a list is no name, address or prefix.
type EntryError struct{ Index int }

// Error names the place.
func (e *EntryError) Error() string {
	return fmt.Sprintf("entry %d is no host name, address or prefix", e.Index+1)
}

// Names returns the entries in the form of vLLM's --allowed-media-domains. ok is false
// where an entry has no such form: vLLM takes no prefixes.
func (p *Policy) Names() (names []string, ok bool) {
	names = slices.Clone(p.names)
	for _, prefix := range p.prefixes {
		if !prefix.IsSingleIP() {
			return nil, false
		}
		names = append(names, prefix.Addr().String())
	}
	return names, true
}

// The reasons why a URL may not be fetched. Their text contains nothing of the URL.
var (
	ErrScheme  = errors.New("only https:, http: and data: may be used")
	ErrForm    = errors.New("it is not a plain URL with a host name")
	ErrPrivate = errors.New("it does not name a public host")
	ErrList    = errors.New("its host is not among those that may be used")
)

// Check returns nil for a URL that may be fetched, otherwise one of the errors above.
// It is strict, because programs read URLs in different ways: one takes for a user name
// what another takes for the host.
func (p *Policy) Check(url string) error {
	const data = "data:"
	if len(url) >= len(data) && strings.EqualFold(url[:len(data)], data) {
		return nil
	}
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return ErrScheme
	}
	// Some programs drop control characters, some take a backslash for a slash.
	if strings.ContainsFunc(rest, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return ErrForm
	}
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	name, addr, err := host(withoutPort(authority))
	if err != nil {
		return err
	}
	return p.allows(name, addr)
}

func (p *Policy) allows(name string, addr netip.Addr) error {
	listed := p != nil && len(p.names)+len(p.prefixes) > 0
	switch {
	case listed && addr.IsValid():
		if !slices.ContainsFunc(p.prefixes, func(in netip.Prefix) bool { return in.Contains(addr) }) {
			return ErrList
		}
	case listed:
		if !slices.Contains(p.names, name) {
			return ErrList
		}
	case addr.IsValid() && !publicAddress(addr), !addr.IsValid() && !publicName(name):
		return ErrPrivate
	}
	return nil
}

// withoutPort removes a port of digits; host refuses anything else.
func withoutPort(authority string) string {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 || strings.HasSuffix(authority, "]") || strings.Trim(authority[i+1:], "0123456789") != "" {
		return authority
	}
	return authority[:i]
}

// host reads the host of a URL: a name in lower case, or an address in any spelling.
func host(s string) (name string, addr netip.Addr, err error) {
	if inside, ok := strings.CutPrefix(s, "["); ok {
		inside, ok = strings.CutSuffix(inside, "]")
		addr, err = netip.ParseAddr(inside)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", netip.Addr{}, ErrForm
		}
		return "", addr.Unmap(), nil
	}
	if addr, err := netip.ParseAddr(s); err == nil && addr.Is6() && addr.Zone() == "" {
		return "", addr.Unmap(), nil // in a list, which needs no brackets
	}
	// As browsers do it: full-width digits are digits, an ideographic full stop is a dot.
	name, err = idna.Lookup.ToASCII(strings.TrimSuffix(s, "."))
	if err != nil || name == "" {
		// Names with an underscore are no host names, and resolve all the same.
		name = strings.ToLower(strings.TrimSuffix(s, "."))
	}
	name = strings.TrimSuffix(name, ".")
	if !plainName(name) {
		return "", netip.Addr{}, ErrForm
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if isNumber(last) {
		addr, ok := looseIPv4(name)
		if !ok {
			return "", netip.Addr{}, ErrForm
		}
		return "", addr, nil
	}
	return name, netip.Addr{}, nil
}

func oddInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// plainName reports whether a name consists of labels of letters, digits, hyphens and
// underscores.
func plainName(name string) bool {
	const longest = 253
	if name == "" || len(name) > longest || name[0] == '-' {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.IndexFunc(label, oddInName) >= 0 {
			return false
		}
	}
	return true
}
