package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/config"
	"tollgate/internal/gateway"
	"tollgate/internal/logfile"
)

// serveCmd runs the service.
type serveCmd struct {
	Log string `enum:"file,stderr" default:"file" help:"Where the JSON log goes: file (gateway.log under log.dir, warnings also to stderr) or stderr (for a supervisor that keeps the log, as the launcher does)."`
}

// Help is what --help says beside the flags.
func (*serveCmd) Help() string {
	return `Runs the service that Envoy asks: authorization, metering, access log, health,
the admin API and metrics. Envoy reaches it through sockets in <state_dir>/run;
the bootstrap that fits is printed by "tollgate envoy config". On one host,
"launcher up" starts both.

SIGTERM or Ctrl-C refuses new requests, waits up to drain_timeout for live
streams, settles what is left and stops. SIGHUP reads the key file again.`
}

// Run serves until the environment's context ends.
func (c *serveCmd) Run(env *Env) error {
	cfg, err := env.ConfigOrCreate()
	if err != nil {
		return err
	}
	if file := env.Getenv(config.EngineKeyEnv); file != "" && cfg.GetsKey() {
		cfg.VLLM.APIKeyFile = file
	}
	adjustProcessors(env.Ctx, env.Getenv, cfg.Ledger.Sync)
	out, err := c.output(cfg, env.Stderr)
	if err != nil {
		return err
	}
	defer out.done()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	g, err := gateway.New(env.Ctx, gateway.Options{
		Config: cfg, Log: out.log, Records: out.records, LostLines: out.lost, Terminal: env.Stdout, Reload: reload,
	})
	if errors.Is(err, gateway.ErrStopped) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	watched := tellManager(env.Ctx, cfg)
	defer watched()
	return g.Run(env.Ctx)
}

// output is where a service writes.
type output struct {
	log     hclog.Logger
	records io.Writer    // of requests; nil where the level is above theirs
	lost    func() int64 // lines of the file; nil where another process writes the log
	done    func()
}

// output writes JSON lines. To a file it rotates them itself and repeats
// warnings on stderr, where a person may be looking.
func (c *serveCmd) output(cfg *config.Config, stderr io.Writer) (*output, error) {
	o := &hclog.LoggerOptions{
		Name: "tollgate", Level: hclog.LevelFromString(cfg.Log.Level), JSONFormat: true, Output: stderr,
	}
	out := &output{done: func() {}}
	if c.Log == "stderr" {
		out.log = hclog.New(o)
	} else {
		file, err := logfile.Open(logfile.Options{
			Path: filepath.Join(cfg.Log.Dir, "gateway.log"), MaxBytes: int64(cfg.Log.MaxSizeMB) << 20,
			MaxTotal: int64(cfg.Log.MaxTotalMB) << 20,
			KeepDays: cfg.Log.KeepDays, CheckInterval: cfg.Log.CheckInterval,
		})
		if err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		o.Output = file
		log := hclog.NewInterceptLogger(o)
		log.RegisterSink(hclog.NewSinkAdapter(&hclog.LoggerOptions{Level: hclog.Warn, Output: stderr}))
		out.log, out.lost, out.done = log, file.Dropped, func() { _ = file.Close() }
	}
	if out.log.IsInfo() {
		out.records = o.Output
	}
	return out, nil
}
