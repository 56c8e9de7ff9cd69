package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Engine is one engine of the list engines; its short form is the address alone.
type Engine struct {
	Address string `yaml:"address"` // host:port
	Weight  int    `yaml:"weight"`  // its share of the load, relative; 1 where the file has none
}

func (e *Engine) defaults() { e.Weight = 1 }

func (e *Engine) short(text string) { e.Address = text }

// Written is the line, from 1, of every key that a file sets, as "vllm.port" or
// "engines[0].address".
type Written map[string]int

// Equal is always true, for go-cmp: where a value stands is no part of it.
func (Written) Equal(Written) bool { return true }

func (d *decoder) written() Written {
	w := make(Written, len(d.positions))
	for key, p := range d.positions {
		w[key] = p.Line
	}
	return w
}

// EngineEntry is one engine that the configuration names.
type EngineEntry struct {
	Address string // host:port
	Weight  int    // 1 and more
	Line    int    // of the file; 0 where no line says it
}

// LocalEngine reports whether vllm.host and vllm.port, or vllm.endpoints, are
// engines. Where the file has engines, no auto_start and none of these keys, they
// are only defaults, and there is no engine on this host.
func (c *Config) LocalEngine() bool {
	_, given := c.Written["engines"]
	if len(c.Engines) == 0 && !given {
		return true
	}
	return c.VLLM.AutoStart || slices.ContainsFunc([]string{"vllm.host", "vllm.port", "vllm.endpoints"}, func(key string) bool {
		_, ok := c.Written[key]
		return ok
	})
}

// Fleet are all engines that the configuration names, in its order: those of vllm,
// then those of engines. It may be empty: engines can also come at run time.
func (c *Config) Fleet() []EngineEntry {
	var out []EngineEntry
	if c.LocalEngine() {
		for i, e := range c.VLLM.Endpoints {
			out = append(out, EngineEntry{Address: e, Weight: 1, Line: c.Written[fmt.Sprintf("vllm.endpoints[%d]", i)]})
		}
		if len(c.VLLM.Endpoints) == 0 {
			line := max(c.Written["vllm.port"], c.Written["vllm.host"])
			out = append(out, EngineEntry{Address: net.JoinHostPort(c.VLLM.Host, strconv.Itoa(c.VLLM.Port)), Weight: 1, Line: line})
		}
	}
	for i, e := range c.Engines {
		out = append(out, EngineEntry{Address: e.Address, Weight: max(1, e.Weight), Line: c.Written[fmt.Sprintf("engines[%d]", i)]})
	}
	return out
}

// EngineAddresses are the addresses of [Config.Fleet].
func (c *Config) EngineAddresses() []string {
	var out []string
	for _, e := range c.Fleet() {
		out = append(out, e.Address)
	}
	return out
}

// CanonicalAddress is host:port in its one spelling: names in lower case, addresses
// in their shortest form.
func CanonicalAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || !hostname(host) {
		return "", fmt.Errorf("%q is not HOST:PORT; write for example 10.0.0.2:8000", address)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), uint16(n)).String(), nil
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.FormatUint(n, 10)), nil
}

// MaxWeight is the largest weight of an engine.
const MaxWeight = 1000

// fleet checks the list of engines: each once, however it is spelt.
func (d *decoder) fleet(c *Config) {
	seen := map[string]string{}
	if c.written(d, "vllm.host", "vllm.port", "vllm.endpoints") || c.VLLM.AutoStart {
		for i, e := range c.VLLM.Endpoints {
			seen[spelt(e)] = fmt.Sprintf("vllm.endpoints[%d]", i)
		}
		if len(c.VLLM.Endpoints) == 0 {
			seen[spelt(net.JoinHostPort(c.VLLM.Host, strconv.Itoa(c.VLLM.Port)))] = "vllm.host and vllm.port"
		}
	}
	for i, e := range c.Engines {
		key := fmt.Sprintf("engines[%d]", i)
		d.address(join(key, "address"), e.Address, "10.0.0.2:8000", false)
		within(d, join(key, "weight"), e.Weight, 1, MaxWeight, "a share relative to the other engines, as 1; an engine that should get nothing is left out")
		if first, ok := seen[spelt(e.Address)]; ok {
			d.bad(join(key, "address"), "is the engine of "+first+" already", "keep one of them")
		}
		seen[spelt(e.Address)] = key
	}
}

func (c *Config) written(d *decoder, keys ...string) bool {
	return slices.ContainsFunc(keys, func(key string) bool {
		_, ok := d.positions[key]
		return ok
	})
}

// spelt is the canonical spelling, or the text itself where it is no address.
func spelt(address string) string {
	if canonical, err := CanonicalAddress(address); err == nil {
		return canonical
	}
	return address
}

func (d *decoder) gateways(c *Config) {
	for i, g := range c.Launcher.Gateways {
		key := fmt.Sprintf("launcher.gateways[%d]", i)
		u, err := url.Parse(g.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
			d.bad(join(key, "url"), "is not the address of a gateway", "write its scheme, host and port, as https://gate.example.org:8443")
		}
		d.needed(join(key, "key_file"), g.KeyFile, "name a file that holds a key of the user launcher; on the gateway: tollgate keys add --user launcher")
		d.file(join(key, "key_file"), g.KeyFile)
	}
}

// local reports whether the gateway is on this host.
func (g Gateway) local() bool {
	u, err := url.Parse(g.URL)
	return err == nil && loopbackHost(u.Hostname())
}
