package config

import "time"

// Default is the configuration of an empty file. Every call returns a fresh
// value that the caller may change.
func Default() *Config {
	return &Config{
		Listen:        "127.0.0.1:8080",
		MetricsListen: "127.0.0.1:9464",
		StateDir:      "state",
		CORS:          CORS{AllowOrigins: []string{"*"}},
		Log:           Log{Level: "info", Dir: "logs", MaxSizeMB: 100, KeepDays: 7, CheckInterval: time.Hour, MaxTotalMB: 2048},
		Auth:          Auth{APIKeysFile: "config/api_keys.json"}, //nolint:gosec // a path
		Request: Request{
			MaxBodyMB:             32,
			MaxInflightBodyMB:     512,
			BodyTimeout:           time.Minute,
			IdleTimeout:           10 * time.Minute,
			MaxN:                  16,
			MaxPrompts:            64,
			DefaultOutputEstimate: 256,
		},
		DrainTimeout: time.Minute,
		Ledger:       Ledger{Sync: "process", KeepDays: 400},
		Store:        Store{Kind: "memory", Redis: Redis{Timeout: 50 * time.Millisecond}},
		Balance:      Balance{Policy: "prefix", MaxLoad: 1.25},
		Envoy:        Envoy{Meter: MeterAuto},
		OTel:         OTel{Protocol: OTLPOverGRPC, Sample: 1},
		VLLM: VLLM{
			Host:            "127.0.0.1",
			Port:            8000,
			LaunchMode:      "cli",
			PythonLauncher:  PythonLauncher{Python: "python3"},
			LogFile:         "vllm.log",
			ReadyTimeout:    15 * time.Minute,
			ShutdownTimeout: 30 * time.Second,
			Restart:         Restart{BackoffMin: time.Second, BackoffMax: time.Minute, GiveUpAfter: 5, Within: 10 * time.Minute},
			StallTimeout:    5 * time.Minute,
			LoRA:            LoRA{MaxLoRAs: 1, MaxLoRARank: 16},
		},
	}
}
