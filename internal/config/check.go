package config

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tollgate/internal/strictfile"
)

// bad adds a mistake in the value of a key. A value that is not in the file (a
// default that does not fit what is) is reported at the section it belongs to.
// A key has one mistake at a time: the value of one that could not be decoded
// means nothing.
func (d *decoder) bad(key, message, suggestion string) {
	if slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Key == key }) {
		return
	}
	p := position{Line: 1, Column: 1}
	for k := key; k != ""; {
		if at, ok := d.positions[k]; ok {
			p = at
			break
		}
		k = k[:max(strings.LastIndexAny(k, ".["), 0)]
	}
	d.add(p, key, message, suggestion)
}

// replace is bad for what outweighs another mistake of the same value.
func (d *decoder) replace(key, message, suggestion string) {
	d.problems = slices.DeleteFunc(d.problems, func(p Problem) bool { return p.Key == key })
	d.bad(key, message, suggestion)
}

// flagNamed says whether arguments for vLLM hold one of the flags, in a spelling
// that it takes: with underscores, or with its value after "=".
func flagNamed(args []string, flags ...string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return slices.Contains(flags, strings.ReplaceAll(name, "_", "-"))
	})
}

// within checks that low ≤ v ≤ high.
func within[T cmp.Ordered](d *decoder, key string, v, low, high T, example string) {
	if v < low || v > high {
		d.bad(key, fmt.Sprintf("must be between %v and %v", low, high), example)
	}
}

// longest is the longest duration that is believed; longer ones are typing
// mistakes, and Envoy refuses some of them.
const longest = 365 * 24 * time.Hour

func (d *decoder) lasting(key string, v time.Duration, example string) {
	switch {
	case v <= 0:
		d.bad(key, "must be above 0", example)
	case v > longest:
		d.bad(key, "must be at most 8760h, a year", example)
	}
}

func (d *decoder) oneOf(key, v string, allowed ...string) {
	if slices.Contains(allowed, v) {
		return
	}
	suggestion := "allowed: " + strings.Join(allowed, ", ")
	if n := nearest(v, allowed); n != "" {
		suggestion = "did you mean " + n + "? " + suggestion
	}
	d.bad(key, show(key, v)+" is not allowed", suggestion)
}

// needed checks a path or a name that is needed.
func (d *decoder) needed(key, v, example string) {
	switch {
	case strings.TrimSpace(v) == "":
		d.bad(key, "must not be empty", example)
	case strings.ContainsAny(v, "\x00\r\n"):
		d.bad(key, "must be one line of text", example)
	}
}

// address checks HOST:PORT. With ip the host must be an address, because who
// listens there does not resolve names.
func (d *decoder) address(key, v, example string, ip bool) {
	host, port, err := net.SplitHostPort(v)
	switch {
	case strings.Contains(v, "://"):
		d.bad(key, "must be HOST:PORT without a scheme", "write for example "+example)
		return
	case err != nil:
		d.bad(key, show(key, v)+" is not HOST:PORT", "write for example "+example)
		return
	case host == "" && ip:
		d.bad(key, "has no host", "write 127.0.0.1:"+port+" for this machine only, 0.0.0.0:"+port+" for the network")
		return
	case ip && net.ParseIP(host) == nil:
		d.bad(key, "must have an IP address as host", "write for example "+example)
		return
	case !hostname(host):
		d.bad(key, show(key, host)+" is not a host name or an IP address", "write for example "+example)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		d.bad(key, "must have a port between 1 and 65535", "write for example "+example)
	}
}

// hostname reports whether s can be a host: a name or an address.
func hostname(s string) bool {
	if net.ParseIP(s) != nil {
		return true
	}
	if s == "" || len(s) > 253 || strings.HasPrefix(s, "-") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}

// file checks that a named file can be read. The path is not repeated: a secret
// may stand where its file belongs, and the line says where.
func (d *decoder) file(key, path string) {
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // the operator names it
	if err != nil {
		d.bad(key, "names a file that cannot be read: "+strictfile.Reason(err), "relative paths start at the working directory")
		return
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		d.bad(key, "names a directory", "name the file in it")
	}
}

// maxCount bounds every limit: above it Redis, which counts in doubles, is no
// longer exact.
const maxCount = 1 << 53

func (d *decoder) limit(key string, v *int64, example string) {
	if v == nil {
		return
	}
	switch {
	case *v < 1:
		d.bad(key, "must be at least 1", "write null for no limit, or for example "+example)
	case *v > maxCount:
		d.bad(key, "is too large to count", "write null for no limit")
	}
}

func (d *decoder) qps(key string, v *float64) {
	if v == nil {
		return
	}
	switch {
	case !(*v > 0) || math.IsInf(*v, 0):
		d.bad(key, "must be above 0", "write null for no limit, or for example 10")
	case *v > 1e6:
		d.bad(key, "must be at most 1000000", "write null for no limit")
	}
}
