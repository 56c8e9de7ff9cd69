package config

import (
	"net"
	"slices"
	"strconv"
	"time"
)

// Warnings returns one sentence for each setting that is allowed and probably a
// mistake. Every start repeats them. None contains a secret.
func (c *Config) Warnings() []string {
	var w []string
	if !loopback(c.Listen) && c.TLS.CertFile == "" {
		w = append(w, "listen "+c.Listen+" serves a network without TLS: keys and prompts travel in clear text; set tls.cert_file and tls.key_file")
	}
	if c.AdminListen != "" && !loopback(c.AdminListen) && c.TLS.CertFile == "" {
		w = append(w, "admin_listen "+c.AdminListen+" serves a network without TLS: an admin key travels in clear text; set tls.cert_file and tls.key_file")
	}
	if !loopback(c.MetricsListen) {
		w = append(w, "metrics_listen "+c.MetricsListen+" serves metrics to a network without a key")
	}
	if c.Service.Listen != "" && !loopback(c.Service.Listen) && slices.ContainsFunc(c.Fleet(), func(e EngineEntry) bool { return loopback(e.Address) }) {
		w = append(w, "service.listen serves Envoys on other hosts, but an engine has a loopback address, which is another machine to them; name it by an address that they reach")
	}
	return slices.Concat(w, c.hostWarnings(), c.engineWarnings(), c.openFiles())
}

// hostWarnings are about launchers and the store.
func (c *Config) hostWarnings() []string {
	var w []string
	if c.Launcher.Listen != "" && !loopback(c.Launcher.Listen) {
		w = append(w, "launcher.listen "+c.Launcher.Listen+" carries its token over a network without TLS: use a private network")
	}
	if len(c.Launcher.Gateways) > 0 && loopbackHost(c.VLLM.Host) && slices.ContainsFunc(c.Launcher.Gateways, func(g Gateway) bool { return !g.local() }) {
		w = append(w, "launcher.gateways names a gateway on another host, but vllm.host "+c.VLLM.Host+" is reached from this one only; set vllm.host to an address that the gateway reaches")
	}
	if len(c.Launchers) > 0 && c.Launcher.TokenFile == "" {
		w = append(w, "launchers are named but launcher.token_file is empty: they will refuse")
	}
	if c.Store.Kind == "redis" && !c.Store.Redis.TLS && !allLoopback(c.Store.Redis.Addresses) {
		w = append(w, "store.redis is reached over a network without TLS; set store.redis.tls")
	}
	if c.Store.Kind == "redis" && c.Store.Redis.Timeout >= decisionTimeout {
		w = append(w, "store.redis.timeout "+c.Store.Redis.Timeout.String()+" is not below the second that Envoy waits for a decision: while Redis is out, nobody passes; use for example 50ms")
	}
	return append(w, c.centralWarnings()...)
}

// centralWarnings are about several gateways that count apart.
func (c *Config) centralWarnings() []string {
	if c.Store.Kind != "redis" && c.Central.PostgresFile != "" {
		return []string{"central.postgres_file is set but store.kind is memory: each gateway counts quotas and limits for itself, " +
			"and several together may let through as many times the rest of a quota; set store.kind: redis"}
	}
	return nil
}

// decisionTimeout is the timeout of ext_authz in envoy.yaml.
const decisionTimeout = time.Second

func (c *Config) engineWarnings() []string {
	var w []string
	if c.VLLM.AutoStart && len(c.VLLM.Endpoints) > 0 {
		w = append(w, "vllm.auto_start starts an engine, but vllm.endpoints replaces vllm.host and vllm.port: list the engine there too")
	}
	if c.VLLM.AutoStart {
		w = append(w, c.VLLM.Exposed()...)
	}
	l := c.VLLM.LoRA
	if !l.Enabled && (len(l.Preload) > 0 || l.Runtime.Enabled) {
		w = append(w, "vllm.lora.preload and vllm.lora.runtime do nothing while vllm.lora.enabled is false")
	}
	if l.Enabled && l.Runtime.Enabled && l.Dir == "" {
		w = append(w, "vllm.lora.runtime is enabled but vllm.lora.dir is empty: no adapter can be loaded at run time")
	}
	return w
}

// Exposed warns, in at most one sentence, where the engine that the launcher starts can
// be reached from other machines and has no key.
func (v *VLLM) Exposed() []string {
	switch {
	case v.APIKeyFile != "":
		return nil
	case flagNamed(v.Args, "--host"):
		return []string{"vllm.args has --host: a program that reaches that address uses the engine without a key and unmetered; name a file with one in vllm.api_key_file, or use vllm.host"}
	case !loopbackHost(v.Host):
		return []string{"vllm.host " + v.Host + " serves the engine to a network without a key, unmetered; name a file with one in vllm.api_key_file"}
	}
	return nil
}

// GetsKey reports whether launcher up makes a key for the engine that it starts. It
// does so where the engine listens on loopback, has no key, and no other engine would
// receive the key.
func (c *Config) GetsKey() bool {
	v := &c.VLLM
	own := net.JoinHostPort(v.Host, strconv.Itoa(v.Port))
	return v.AutoStart && v.APIKeyFile == "" && len(v.Exposed()) == 0 && len(c.Engines) == 0 &&
		!slices.ContainsFunc(v.Endpoints, func(e string) bool { return e != own })
}

func allLoopback(addresses []string) bool {
	return !slices.ContainsFunc(addresses, func(a string) bool { return !loopback(a) })
}
