package media

import (
	"net/netip"
	"strconv"
	"strings"
)

// isNumber reports whether a label is a number. A host whose last label is a number is
// an address, by the rule "ends in a number" of WHATWG's URL standard.
func isNumber(label string) bool {
	if strings.Trim(label, "0123456789") == "" {
		return label != ""
	}
	hex, ok := strings.CutPrefix(label, "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// looseIPv4 reads an address as inet_aton does: one to four numbers, decimal, octal or
// hexadecimal, the last number fills the remaining bytes.
func looseIPv4(s string) (addr netip.Addr, ok bool) {
	labels := strings.Split(s, ".")
	const bytes = 4
	if len(labels) > bytes {
		return addr, false
	}
	var v uint64
	for i, label := range labels {
		n, ok := looseNumber(label)
		left := uint(bytes - i)
		switch {
		case !ok:
			return addr, false
		case i < len(labels)-1:
			if n > 0xff {
				return addr, false
			}
			v |= n << (8 * (left - 1))
		default:
			if n >= 1<<(8*left) {
				return addr, false
			}
			v |= n
		}
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
}

func looseNumber(s string) (uint64, bool) {
	base := 10
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		s, base = hex, 16
		if s == "" {
			return 0, true // as inet_aton has it
		}
	} else if len(s) > 1 && s[0] == '0' {
		s, base = s[1:], 8
	}
	if strings.ContainsAny(s, "+-_") {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil
}

// inward are the addresses outside the public internet: this host, this network, this
// link, networks of carriers, and ranges that are not assigned. The ranges for examples
// are left out, because no host has them.
var inward = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "100::/64", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// wrapping lists IPv6 prefixes that contain an IPv4 address, and the byte at which it
// begins.
var wrapping = []struct {
	prefix netip.Prefix
	at     int
	flip   byte
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12, 0},   // NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12, 0}, // NAT64 with a local prefix
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12, 0},
	{netip.MustParsePrefix("2002::/16"), 2, 0},     // 6to4
	{netip.MustParsePrefix("2001::/32"), 12, 0xff}, // Teredo
}

func publicAddress(addr netip.Addr) bool {
	for _, p := range inward {
		if p.Contains(addr) {
			return false
		}
	}
	for _, w := range wrapping {
		if w.prefix.Contains(addr) {
			b := addr.As16()
			return publicAddress(netip.AddrFrom4([4]byte{b[w.at] ^ w.flip, b[w.at+1] ^ w.flip, b[w.at+2] ^ w.flip, b[w.at+3] ^ w.flip}))
		}
	}
	return true
}

// innerDomains are top-level domains without public names.
var innerDomains = map[string]bool{
	"localhost": true, "localdomain": true, "local": true, "internal": true, "intranet": true, "lan": true,
	"home": true, "corp": true, "private": true,
}

// publicName reports whether a name has a dot and a top-level domain that may be
// public.
func publicName(name string) bool {
	i := strings.LastIndexByte(name, '.')
	return i > 0 && !innerDomains[name[i+1:]] && !strings.HasSuffix("."+name, ".home.arpa")
}
