// Package config is the one YAML file that both binaries read.
//
// It is typed and strict: unknown keys, wrong types and bad values are errors
// with file, line and a suggestion, all reported at once. Every value has a
// default, so an empty file works. After start a [Config] is never changed.
package config

import (
	"path/filepath"
	"time"
)

// Config is the whole file. Relative paths are relative to the working
// directory.
type Config struct {
	// Listen is the edge, HOST:PORT. Default 127.0.0.1:8080.
	Listen string `yaml:"listen"`
	// TLS serves HTTPS at the edge when both files are set.
	TLS TLS `yaml:"tls"`
	// MetricsListen serves /metrics and /healthz without a key. Default 127.0.0.1:9464.
	MetricsListen string `yaml:"metrics_listen"`
	// StateDir holds ledger, sockets, pid files, LoRA state. Default "state".
	StateDir string `yaml:"state_dir"`
	CORS     CORS   `yaml:"cors"`
	Log      Log    `yaml:"log"`
	Auth     Auth   `yaml:"auth"`
	// RateLimit: absent or null means unlimited.
	RateLimit RateLimit `yaml:"rate_limit"`
	// TrustedProxies is the number of hops in front of Envoy whose
	// x-forwarded-for is believed. Default 0.
	TrustedProxies int     `yaml:"trusted_proxies"`
	Request        Request `yaml:"request"`
	// DrainTimeout is how long a stop waits for live streams. Default 60s.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
	Ledger       Ledger        `yaml:"ledger"`
	Store        Store         `yaml:"store"`
	Central      Central       `yaml:"central"`
	Service      Service       `yaml:"service"`
	VLLM         VLLM          `yaml:"vllm"`
	// Engines are beside the one of VLLM, see [Config.Fleet].
	Engines []Engine `yaml:"engines"`
	// Models are names that clients use beside those of the engines.
	Models   []Model  `yaml:"models"`
	Balance  Balance  `yaml:"balance"`
	Launcher Launcher `yaml:"launcher"`
	// Launchers are control addresses of launchers on other hosts; empty means
	// this host's socket.
	Launchers []string `yaml:"launchers"`
	Envoy     Envoy    `yaml:"envoy"`
	OTel      OTel     `yaml:"otel"`
	// AdminListen, HOST:PORT, takes /admin and /metrics off Listen. Empty: they
	// are there.
	AdminListen string `yaml:"admin_listen"`
	// Written has every key that the file sets.
	Written Written `yaml:"-"`
}

// TLS at the edge; both set or both empty. The files are watched by Envoy.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// CORS of the edge.
type CORS struct {
	// AllowOrigins are exact origins, or "*" for any. Default ["*"].
	AllowOrigins []string `yaml:"allow_origins"`
}

// Log of every process of this host.
type Log struct {
	Level         string        `yaml:"level"`          // trace, debug, info, warn, error
	Dir           string        `yaml:"dir"`            // gateway.log, envoy.log, vllm.log
	MaxSizeMB     int           `yaml:"max_size_mb"`    // MiB of one file before it rotates
	KeepDays      int           `yaml:"keep_days"`      // days
	CheckInterval time.Duration `yaml:"check_interval"` // between cleanings
	MaxTotalMB    int           `yaml:"max_total_mb"`   // MiB of all files of dir; the oldest go first
}

// Auth names the key file.
type Auth struct {
	APIKeysFile string `yaml:"api_keys_file"`
}

// RateLimit holds the global limits; nil is unlimited. Per-key "limits" of the
// key file override the per-key ones.
type RateLimit struct {
	QPS               *float64 `yaml:"qps"`                 // requests per second and client address
	Concurrent        *int64   `yaml:"concurrent"`          // whole gateway
	ConcurrentPerKey  *int64   `yaml:"concurrent_per_key"`  //
	RequestsPerMinute *int64   `yaml:"requests_per_minute"` // per key
	TokensPerMinute   *int64   `yaml:"tokens_per_minute"`   // per key
}

// Request bounds a single request.
type Request struct {
	MaxBodyMB             int           `yaml:"max_body_mb"`             // MiB
	MaxInflightBodyMB     int           `yaml:"max_inflight_body_mb"`    // MiB over all bodies being read or parsed; above it 503
	BodyTimeout           time.Duration `yaml:"body_timeout"`            // whole body must have arrived
	IdleTimeout           time.Duration `yaml:"idle_timeout"`            // no byte in either direction
	MaxN                  int           `yaml:"max_n"`                   // choices
	MaxPrompts            int           `yaml:"max_prompts"`             // prompts of one completions request
	DefaultOutputEstimate int64         `yaml:"default_output_estimate"` // tokens
	IsolatePrefixCache    bool          `yaml:"isolate_prefix_cache"`
	MediaDomains          []string      `yaml:"media_domains"` // names, addresses, prefixes that media URLs may have; empty: any public name
}

// Ledger is the SQLite file of token accounts.
type Ledger struct {
	Path     string `yaml:"path"`      // empty: <state_dir>/ledger.db
	Sync     string `yaml:"sync"`      // process or power
	KeepDays int    `yaml:"keep_days"` // days
}

// Central is one ledger and one set of keys for several gateways.
type Central struct {
	PostgresFile string `yaml:"postgres_file"` // holds a connection string; empty: this gateway stands alone
	Keys         bool   `yaml:"keys"`          // keys live there too
}

// Service is how Envoys on other hosts reach tollgate.
type Service struct {
	// Listen, HOST:PORT, has gRPC and the HTTP API on one port. Empty: Unix sockets only.
	Listen string     `yaml:"listen"`
	TLS    ServiceTLS `yaml:"tls"`
}

// ServiceTLS is mutual: both sides show a certificate. The files are watched.
type ServiceTLS struct {
	CertFile     string `yaml:"cert_file"`
	KeyFile      string `yaml:"key_file"`
	ClientCAFile string `yaml:"client_ca_file"` // the authority of the Envoys' certificates
	// ClientIDs are SPIFFE ids or DNS names, one of which a certificate must have.
	// Empty: any certificate of the authority.
	ClientIDs []string `yaml:"client_ids"`
}

// Store of the limits: memory or redis.
type Store struct {
	Kind  string `yaml:"kind"`
	Redis Redis  `yaml:"redis"`
}

// Redis is used when store.kind is redis.
type Redis struct {
	Addresses    []string      `yaml:"addresses"`
	Username     string        `yaml:"username"`
	PasswordFile string        `yaml:"password_file"`
	DB           int           `yaml:"db"`
	TLS          bool          `yaml:"tls"`
	Timeout      time.Duration `yaml:"timeout"` // budget of one decision
}

// VLLM is the engine behind the gate.
type VLLM struct {
	Host            string            `yaml:"host"`
	Port            int               `yaml:"port"`
	Endpoints       []string          `yaml:"endpoints"` // host:port; replaces Host and Port
	AutoStart       bool              `yaml:"auto_start"`
	LaunchMode      string            `yaml:"launch_mode"` // cli, python_api, simulated
	Model           string            `yaml:"model"`
	Args            []string          `yaml:"args"`
	PythonLauncher  PythonLauncher    `yaml:"python_launcher"`
	ExtraEnv        map[string]string `yaml:"extra_env"`
	APIKeyFile      string            `yaml:"api_key_file"`
	LogFile         string            `yaml:"log_file"` // under log.dir
	PIDFile         string            `yaml:"pid_file"` // empty: <state_dir>/vllm.pid
	ReadyTimeout    time.Duration     `yaml:"ready_timeout"`
	ShutdownTimeout time.Duration     `yaml:"shutdown_timeout"`
	Restart         Restart           `yaml:"restart"`
	StallTimeout    time.Duration     `yaml:"stall_timeout"`
	LoRA            LoRA              `yaml:"lora"`
}

// Model is a name that clients use, and what stands behind it.
type Model struct {
	Name     string   `yaml:"name"` // exact, or with one * at its end
	Targets  []Target `yaml:"targets"`
	Fallback []string `yaml:"fallback"` // in this order, while no target is ready
}

// Target is a served model and its share.
type Target struct {
	Model  string `yaml:"model"`
	Weight int    `yaml:"weight"` // relative; 1 where the file has none
}

// Balance says how an engine is chosen for a request.
type Balance struct {
	Policy  string  `yaml:"policy"`   // prefix or least_loaded
	MaxLoad float64 `yaml:"max_load"` // × the mean load, beyond which a full cache does not count
}

// PythonLauncher says which Python runs vLLM.
type PythonLauncher struct {
	Python   string `yaml:"python"`
	CondaEnv string `yaml:"conda_env"`
}

// Restart is the policy after a crash.
type Restart struct {
	BackoffMin  time.Duration `yaml:"backoff_min"`
	BackoffMax  time.Duration `yaml:"backoff_max"`
	GiveUpAfter int           `yaml:"give_up_after"` // crashes
	Within      time.Duration `yaml:"within"`
}

// LoRA adapters of the engine.
type LoRA struct {
	Enabled     bool        `yaml:"enabled"`
	MaxLoRAs    int         `yaml:"max_loras"`
	MaxLoRARank int         `yaml:"max_lora_rank"`
	Dir         string      `yaml:"dir"` // adapters loaded at run time must lie under it
	Preload     []Adapter   `yaml:"preload"`
	Runtime     LoRARuntime `yaml:"runtime"`
}

// Adapter is one LoRA adapter.
type Adapter struct {
	Name string `yaml:"name"`
	Path string `yaml:"path"`
}

// LoRARuntime allows loading and unloading while the engine runs.
type LoRARuntime struct {
	Enabled          bool   `yaml:"enabled"`
	ResolverCacheDir string `yaml:"resolver_cache_dir"`
}

// Launcher is the control API of this host's launcher.
type Launcher struct {
	Listen    string `yaml:"listen"` // empty: <state_dir>/run/launcher.sock; host:port needs TokenFile
	TokenFile string `yaml:"token_file"`
	// Gateways are told of this host's engine while it is ready.
	Gateways []Gateway `yaml:"gateways"`
}

// Gateway is a tollgate on another host that sends requests to this host's engine.
type Gateway struct {
	URL     string `yaml:"url"`      // its edge, as https://gate.example.org:8443
	KeyFile string `yaml:"key_file"` // holds a key of the user "launcher"
}

// Envoy is the proxy process.
type Envoy struct {
	Binary      string `yaml:"binary"`      // empty: ENVOY_BIN, PATH, the fetched one
	Concurrency int    `yaml:"concurrency"` // worker threads; 0 = all cores
	MaxHeapMB   int    `yaml:"max_heap_mb"` // above it Envoy sheds load, the largest streams first; 0 = a quarter of the machine
	// Meter is where answers are counted: [MeterAuto], [MeterModule] or [MeterExtProc].
	Meter string `yaml:"meter"`
}

// OTel sends one span for each request to an OpenTelemetry collector.
type OTel struct {
	Endpoint    string  `yaml:"endpoint"`     // HOST:PORT or a URL; empty: nothing is traced
	Protocol    string  `yaml:"protocol"`     // [OTLPOverGRPC] or [OTLPOverHTTP]
	HeadersFile string  `yaml:"headers_file"` // lines "name: value" that go with every batch
	Sample      float64 `yaml:"sample"`       // share of the traces that begin here, 0 to 1
}

// The values of otel.protocol.
const (
	OTLPOverGRPC = "grpc"
	OTLPOverHTTP = "http"
)

// The values of envoy.meter.
const (
	MeterAuto    = "auto"     // inside Envoy where a library for it is there, else in tollgate
	MeterModule  = "module"   // inside Envoy, or not at all
	MeterExtProc = "ext_proc" // in tollgate
)

// LedgerPath is where the ledger lies.
func (c *Config) LedgerPath() string {
	if c.Ledger.Path != "" {
		return c.Ledger.Path
	}
	return filepath.Join(c.StateDir, "ledger.db")
}

// VLLMPIDFile is where the engine's PID is kept.
func (c *Config) VLLMPIDFile() string {
	if c.VLLM.PIDFile != "" {
		return c.VLLM.PIDFile
	}
	return filepath.Join(c.StateDir, "vllm.pid")
}

// GenerationPath is the file in which a tollgate keeps for the next one what the
// engines have made.
func (c *Config) GenerationPath() string { return filepath.Join(c.StateDir, "generation.json") }

// BaselinePath is the file of the baselines of reconciliation: the counters of the
// engines at the last start of the service or of the engine.
func (c *Config) BaselinePath() string { return filepath.Join(c.StateDir, "reconcile.json") }

// EngineKeyEnv is the environment variable by which the launcher tells tollgate the
// path of the file with the engine's key, where the launcher made that key.
const EngineKeyEnv = "TOLLGATE_ENGINE_KEY_FILE"
