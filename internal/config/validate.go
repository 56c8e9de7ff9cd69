package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/adapter"
	"tollgate/internal/media"
)

// LoRARanks are the values of max_lora_rank that vLLM accepts.
func LoRARanks() []int { return []int{1, 8, 16, 32, 64, 128, 256, 320, 512} }

// validate checks the values, also those that were not in the file. It runs after type
// mistakes too: a value of the wrong type has kept its default.
func (d *decoder) validate(c *Config) {
	d.edge(c)
	d.logs(c)
	d.rates(c)
	d.requests(c)
	d.stores(c)
	d.service(&c.Service)
	d.engine(&c.VLLM)
	d.fleet(c)
	d.lora(&c.VLLM.LoRA)
	d.models(c)
	d.processes(c)
	d.traces(&c.OTel)
	d.listeners(c)
}

// listeners finds two that want the same port of the same address.
func (d *decoder) listeners(c *Config) {
	type listener struct{ key, address string }
	all := []listener{{"listen", c.Listen}, {"metrics_listen", c.MetricsListen}, {"launcher.listen", c.Launcher.Listen}, {"admin_listen", c.AdminListen}, {"service.listen", c.Service.Listen}}
	if c.VLLM.AutoStart {
		all = append(all, listener{"vllm.port", net.JoinHostPort(c.VLLM.Host, strconv.Itoa(c.VLLM.Port))})
	}
	all = slices.DeleteFunc(all, func(l listener) bool { return l.address == "" })
	for i, second := range all {
		for _, first := range all[:i] {
			good, bad := first, second
			if _, written := d.positions[bad.key]; !written && d.positions[good.key].Line > 0 {
				good, bad = bad, good // report the value that the file sets, not a default
			}
			switch {
			case good.address == bad.address:
				d.bad(bad.key, "is the same as "+good.key, "give it a port of its own")
			case overlap(good.address, bad.address):
				d.bad(bad.key, "has the port of "+good.key, "give it a port of its own")
			}
		}
	}
}

// overlap reports whether both addresses cannot be listened on at once: the same
// port, and the same host or all hosts.
func overlap(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB {
		return false
	}
	all := func(host string) bool { ip := net.ParseIP(host); return host == "" || ip != nil && ip.IsUnspecified() }
	same := func(host string) string {
		if host == "localhost" {
			return "127.0.0.1"
		}
		return host
	}
	return all(hostA) || all(hostB) || same(hostA) == same(hostB)
}

func (d *decoder) edge(c *Config) {
	d.address("listen", c.Listen, "127.0.0.1:8080", true)
	d.address("metrics_listen", c.MetricsListen, "127.0.0.1:9464", false)
	if c.AdminListen != "" {
		d.address("admin_listen", c.AdminListen, "127.0.0.1:8081", true)
	}
	d.needed("state_dir", c.StateDir, "write for example state")
	switch {
	case c.TLS.CertFile != "" && c.TLS.KeyFile == "":
		d.bad("tls.key_file", "is missing, cert_file is set", "set both for HTTPS, or none")
	case c.TLS.CertFile == "" && c.TLS.KeyFile != "":
		d.bad("tls.cert_file", "is missing, key_file is set", "set both for HTTPS, or none")
	}
	d.file("tls.cert_file", c.TLS.CertFile)
	d.file("tls.key_file", c.TLS.KeyFile)
	for i, o := range c.CORS.AllowOrigins {
		u, err := url.Parse(o)
		if o != "*" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || o != u.Scheme+"://"+u.Host) {
			key := fmt.Sprintf("cors.allow_origins[%d]", i)
			d.bad(key, show(key, o)+" is not an origin", `write "*", or a scheme and host without path, as https://chat.example.org`)
		}
	}
	within(d, "trusted_proxies", c.TrustedProxies, 0, 100, "0 when clients connect directly, 1 behind one load balancer")
}

func (d *decoder) logs(c *Config) {
	d.oneOf("log.level", c.Log.Level, "trace", "debug", "info", "warn", "error")
	d.needed("log.dir", c.Log.Dir, "write for example logs")
	within(d, "log.max_size_mb", c.Log.MaxSizeMB, 1, 1<<20, "MiB of one file before it rotates, as 100")
	within(d, "log.keep_days", c.Log.KeepDays, 1, 36500, "days, as 7")
	within(d, "log.max_total_mb", c.Log.MaxTotalMB, 1, 1<<24, "MiB of all files, as 2048")
	if c.Log.MaxTotalMB < c.Log.MaxSizeMB && c.Log.MaxTotalMB >= 1 {
		d.bad("log.max_total_mb", "is below max_size_mb, so that one file is more than all", fmt.Sprintf("write at least %d", c.Log.MaxSizeMB))
	}
	d.lasting("log.check_interval", c.Log.CheckInterval, "write for example 1h")
	d.needed("auth.api_keys_file", c.Auth.APIKeysFile, "write for example config/api_keys.json")
}

func (d *decoder) rates(c *Config) {
	d.qps("rate_limit.qps", c.RateLimit.QPS)
	d.limit("rate_limit.concurrent", c.RateLimit.Concurrent, "256")
	d.limit("rate_limit.concurrent_per_key", c.RateLimit.ConcurrentPerKey, "16")
	d.limit("rate_limit.requests_per_minute", c.RateLimit.RequestsPerMinute, "600")
	d.limit("rate_limit.tokens_per_minute", c.RateLimit.TokensPerMinute, "100000")
}

func (d *decoder) requests(c *Config) {
	r := c.Request
	within(d, "request.max_body_mb", r.MaxBodyMB, 1, 1024, "MiB of one body, as 32")
	within(d, "request.max_inflight_body_mb", r.MaxInflightBodyMB, 1, 1<<20, "MiB of all bodies, as 512")
	if r.MaxInflightBodyMB < r.MaxBodyMB && r.MaxInflightBodyMB >= 1 {
		d.bad("request.max_inflight_body_mb", "is below max_body_mb, so that the largest body never passes",
			fmt.Sprintf("write at least %d", r.MaxBodyMB))
	}
	d.lasting("request.body_timeout", r.BodyTimeout, "write for example 60s")
	d.lasting("request.idle_timeout", r.IdleTimeout, "write for example 10m")
	within(d, "request.max_n", r.MaxN, 1, 16384, "choices of one request, as 16")
	within(d, "request.max_prompts", r.MaxPrompts, 1, 16384, "prompts of one request, as 64")
	within(d, "request.default_output_estimate", r.DefaultOutputEstimate, 1, 1<<31, "tokens, as 256")
	var entry *media.EntryError
	if _, err := media.New(r.MediaDomains); errors.As(err, &entry) {
		d.bad(fmt.Sprintf("request.media_domains[%d]", entry.Index), "is no host name, address or prefix",
			"write a name without scheme and port, as images.example.org, or an address or prefix, as 10.1.0.0/16")
	}
	within(d, "drain_timeout", c.DrainTimeout, 0, longest, "write for example 60s, or 0s to wait for nothing")
}

func (d *decoder) stores(c *Config) {
	d.oneOf("ledger.sync", c.Ledger.Sync, "process", "power")
	within(d, "ledger.keep_days", c.Ledger.KeepDays, 1, 36500, "days, as 400")
	d.file("central.postgres_file", c.Central.PostgresFile)
	if c.Central.Keys && c.Central.PostgresFile == "" {
		d.bad("central.keys", "needs central.postgres_file", "name a file that holds a connection string, or write keys: false")
	}
	d.oneOf("store.kind", c.Store.Kind, "memory", "redis")
	r := c.Store.Redis
	if c.Store.Kind == "redis" && len(r.Addresses) == 0 {
		d.bad("store.redis.addresses", "is empty, store.kind is redis", `write for example ["127.0.0.1:6379"]`)
	}
	for i, a := range r.Addresses {
		d.address(fmt.Sprintf("store.redis.addresses[%d]", i), a, "127.0.0.1:6379", false)
	}
	d.file("store.redis.password_file", r.PasswordFile)
	within(d, "store.redis.db", r.DB, 0, 1<<16, "0 is the first")
	d.lasting("store.redis.timeout", r.Timeout, "write for example 50ms")
	if r.Timeout > 10*time.Second {
		d.bad("store.redis.timeout", "must be at most 10s: every request may wait so long", "write for example 50ms")
	}
}

func (d *decoder) engine(v *VLLM) {
	d.oneOf("vllm.launch_mode", v.LaunchMode, "cli", "python_api", "simulated")
	if !hostname(v.Host) {
		d.bad("vllm.host", "must be a host name or an IP address without port", "write for example 127.0.0.1 and set vllm.port")
	}
	within(d, "vllm.port", v.Port, 1, 65535, "8000 is vLLM's own")
	for i, e := range v.Endpoints {
		key := fmt.Sprintf("vllm.endpoints[%d]", i)
		d.address(key, e, "10.0.0.2:8000", false)
		if slices.Contains(v.Endpoints[:i], e) {
			d.bad(key, "is listed twice", "keep one of them")
		}
	}
	switch {
	case v.AutoStart && v.LaunchMode != "simulated" && v.Model == "":
		p := "vllm.model"
		if _, ok := d.positions[p]; !ok {
			p = "vllm.auto_start"
		}
		d.bad(p, "vllm.auto_start needs vllm.model", "write the name or folder of a model, as Qwen/Qwen3-0.6B, or launch_mode: simulated")
	case strings.HasPrefix(v.Model, "-"), strings.ContainsAny(v.Model, "\x00\r\n"):
		d.bad("vllm.model", "is not the name of a model", "write a name or a folder, as Qwen/Qwen3-0.6B")
	}
	d.needed("vllm.python_launcher.python", v.PythonLauncher.Python, "write for example python3")
	d.file("vllm.api_key_file", v.APIKeyFile)
	if v.LogFile == "" || v.LogFile != filepath.Base(v.LogFile) || strings.HasPrefix(v.LogFile, ".") {
		d.bad("vllm.log_file", "must be a file name without folder", "it lies under log.dir; write for example vllm.log")
	}
	d.arguments(v)
	d.supervision(v)
}

// joined matches a flag and its value in one text, which the engine would take for the
// name of a flag.
var joined = regexp.MustCompile(`^(--?[A-Za-z][A-Za-z0-9_.-]*)\s+\S`)

// arguments checks the arguments and the environment of the engine's process.
func (d *decoder) arguments(v *VLLM) {
	for i, a := range v.Args {
		key := fmt.Sprintf("vllm.args[%d]", i)
		if strings.ContainsRune(a, 0) {
			d.bad(key, "has a NUL byte", "remove it")
		}
		flag := joined.FindStringSubmatch(a)
		if flag != nil {
			d.bad(key, "is a flag and its value in one text", fmt.Sprintf("write two: [%s, VALUE], or %s=VALUE", flag[1], flag[1]))
		}
		if flag == nil {
			flag = []string{a, a}
		}
		if flagNamed(flag[1:], "--api-key", "--api-ke", "--api-k") { // vLLM accepts the beginning of a flag
			d.replace(key, "--api-key would show the key in the process list and in the log", "put it into a file and name that in vllm.api_key_file")
		}
	}
	for name, value := range v.ExtraEnv {
		if name == "" || strings.ContainsAny(name, "=\x00\r\n ") || strings.ContainsRune(value, 0) {
			d.bad(join("vllm.extra_env", safeName(name)), "is not the name of an environment variable", "write for example HF_HOME")
		}
	}
}

func (d *decoder) supervision(v *VLLM) {
	d.lasting("vllm.ready_timeout", v.ReadyTimeout, "write for example 15m")
	d.lasting("vllm.shutdown_timeout", v.ShutdownTimeout, "write for example 30s")
	d.lasting("vllm.stall_timeout", v.StallTimeout, "write for example 5m")
	r := v.Restart
	d.lasting("vllm.restart.backoff_min", r.BackoffMin, "write for example 1s")
	d.lasting("vllm.restart.backoff_max", r.BackoffMax, "write for example 1m")
	if r.BackoffMax < r.BackoffMin {
		d.bad("vllm.restart.backoff_max", "is below backoff_min", "write at least "+r.BackoffMin.String())
	}
	within(d, "vllm.restart.give_up_after", r.GiveUpAfter, 1, 1000, "crashes, as 5")
	d.lasting("vllm.restart.within", r.Within, "write for example 10m")
}

func (d *decoder) lora(l *LoRA) {
	within(d, "vllm.lora.max_loras", l.MaxLoRAs, 1, 10000, "adapters in one batch, as 4")
	if !slices.Contains(LoRARanks(), l.MaxLoRARank) {
		d.bad("vllm.lora.max_lora_rank", "is not a rank that vLLM has",
			"allowed: "+strings.Trim(strings.ReplaceAll(fmt.Sprint(LoRARanks()), " ", ", "), "[]"))
	}
	names := map[string]bool{}
	for i, a := range l.Preload {
		key := fmt.Sprintf("vllm.lora.preload[%d]", i)
		switch {
		case !adapter.Valid(a.Name):
			d.bad(join(key, "name"), "must be "+adapter.Rule, "write for example {name: support, path: adapters/support}")
		case names[a.Name]:
			d.bad(join(key, "name"), "is used twice", "give each adapter its own name")
		}
		names[a.Name] = true
		d.needed(join(key, "path"), a.Path, "write the folder of the adapter")
	}
}

func (d *decoder) processes(c *Config) {
	if c.Launcher.Listen != "" {
		d.address("launcher.listen", c.Launcher.Listen, "10.0.0.2:9466", false)
		if c.Launcher.TokenFile == "" {
			d.bad("launcher.listen", "needs launcher.token_file: without it every program that reaches the port controls the engine",
				"name a file with a random token, or leave listen empty for a Unix socket")
		}
	}
	d.file("launcher.token_file", c.Launcher.TokenFile)
	for i, l := range c.Launchers {
		d.address(fmt.Sprintf("launchers[%d]", i), l, "10.0.0.2:9466", false)
	}
	d.gateways(c)
	within(d, "envoy.concurrency", c.Envoy.Concurrency, 0, 1024, "worker threads; 0 is one per core")
	within(d, "envoy.max_heap_mb", c.Envoy.MaxHeapMB, 0, 1<<22, "MiB; 0 is a quarter of the machine")
	d.oneOf("envoy.meter", c.Envoy.Meter, MeterAuto, MeterModule, MeterExtProc)
	if c.Envoy.MaxHeapMB > 0 && c.Envoy.MaxHeapMB < leastHeapMB {
		d.bad("envoy.max_heap_mb", "is hardly what Envoy takes when it is idle", fmt.Sprintf("write at least %d, or 0 for a quarter of the machine", leastHeapMB))
	}
}

// leastHeapMB is the smallest heap with which Envoy can work; an idle Envoy takes about
// 75 MiB.
const leastHeapMB = 128

// loopback reports whether HOST:PORT is reached from this machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopbackHost(host)
}

func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
