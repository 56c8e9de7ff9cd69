package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/internal/control"
	"tollgate/internal/envoyadmin"
	"tollgate/internal/probe"
	"tollgate/internal/supervisor"
	"tollgate/internal/vllm"
)

// Names of the children.
const (
	engineName   = "vllm"
	tollgateName = "tollgate"
	envoyName    = "envoy"
)

const (
	// A hung tollgate stalls every stream: the last of three probes that hang
	// ends at most 4.7 s after the hang began.
	liveInterval = 1200 * time.Millisecond
	liveTimeout  = 1100 * time.Millisecond
	liveMisses   = 3

	serviceReady = 30 * time.Second
	serviceStop  = 15 * time.Second // its streams are gone by then
	envoyStop    = 5 * time.Second

	adapterTimeout = 5 * time.Minute // loading reads weights
)

// serviceRestart is for tollgate and Envoy, which start in less than a second.
var serviceRestart = supervisor.Restart{
	BackoffMin: 200 * time.Millisecond, BackoffMax: 5 * time.Second, GiveUpAfter: 10, Within: 2 * time.Minute,
}

// addEngine adds the engine, with adapters where they are managed at run time.
func (h *host) addEngine() (*control.Adapters, error) {
	v := &h.cfg.VLLM
	// An engine that cannot be started is found here, before the first child starts.
	k, err := engineKey(v)
	if err != nil {
		return nil, misconfigured{err}
	}
	cmd, err := h.engineCommand(k)
	if err != nil {
		return nil, err
	}
	if findProgram(cmd.Path, cmd.Env) == cmd.Path && filepath.Base(cmd.Path) == cmd.Path {
		return nil, misconfigured{errors.New("vllm.auto_start: " + cmd.Path + " is not in PATH; install it, name the Python that has it by its path in vllm.python_launcher.python, or use launch_mode: simulated")}
	}
	lock, err := supervisor.AcquirePIDFile(h.cfg.VLLMPIDFile())
	if err != nil {
		return nil, err
	}
	h.locks = append(h.locks, lock)

	client := engineClient(engineAddress(h.cfg), v)
	adapters := newAdapters(h)
	stall := &stallCheck{engine: client, timeout: v.StallTimeout}
	names := servedNames(v)
	spec := supervisor.Spec{
		Name: engineName, PID: lock,
		Command: func() (supervisor.Command, error) {
			k, err := engineKey(v)
			if err != nil {
				return supervisor.Command{}, err
			}
			cmd, err := h.engineCommand(k)
			cmd.Path = findProgram(cmd.Path, cmd.Env)
			cmd.Args = h.flags.withoutUnknown(cmd.Args)
			return cmd, err
		},
		Ready:         func(ctx context.Context) error { return client.Ready(ctx, names...) },
		ReadyInterval: 250 * time.Millisecond,
		ReadyTimeout:  v.ReadyTimeout,
		OnReady: func(ctx context.Context) {
			stall.reset()
			if adapters != nil {
				adapters.Reapply(ctx)
			}
		},
		Live:         stall.check,
		LiveInterval: max(min(v.StallTimeout/5, 10*time.Second), 100*time.Millisecond),
		LiveTimeout:  max(min(v.StallTimeout/5, 10*time.Second), time.Second),
		LiveMisses:   1, // the check itself waits for the timeout
		StopTimeout:  v.ShutdownTimeout,
		Restart: supervisor.Restart{
			BackoffMin: v.Restart.BackoffMin, BackoffMax: v.Restart.BackoffMax,
			GiveUpAfter: v.Restart.GiveUpAfter, Within: v.Restart.Within,
		},
		Permanent: wrongUsage,
		Lasting:   true, // without it the gateway still serves keys, usage and health
	}
	return adapters, h.add(spec, v.LogFile)
}

// wrongUsage is the exit status of arguments that are wrong: another attempt
// would end the same.
func wrongUsage(e supervisor.Exit) bool { return e.Code == exitUsage }

func newAdapters(h *host) *control.Adapters {
	l := &h.cfg.VLLM.LoRA
	if !l.Enabled || !l.Runtime.Enabled {
		return nil
	}
	return control.NewAdapters(control.AdaptersOptions{
		Dir: l.Dir, StateFile: filepath.Join(h.cfg.StateDir, "lora.json"),
		Engine:   vllm.New(vllm.Options{Address: engineAddress(h.cfg), KeyFile: h.cfg.VLLM.APIKeyFile, Timeout: adapterTimeout, Fresh: true}),
		Reserved: servedNames(&h.cfg.VLLM), Log: h.log,
	})
}

func (h *host) addTollgate() error {
	binary, err := tollgateBinary(h.self, h.environ)
	if err != nil {
		return err
	}
	h.program.Store(&binary)
	service := &probe.Probe{Socket: h.cfg.InState(config.GRPCSocket)}
	return h.add(supervisor.Spec{
		Name: tollgateName,
		Command: func() (supervisor.Command, error) {
			return supervisor.Command{
				Path: *h.program.Load(), Args: []string{"serve", "--config", h.config, "--log", "stderr"}, Env: h.gatewayEnv(),
			}, nil
		},
		Ready: service.Serving, ReadyTimeout: serviceReady,
		Live: service.Serving, LiveInterval: liveInterval, LiveTimeout: liveTimeout, LiveMisses: liveMisses,
		StopTimeout: serviceStop, Restart: serviceRestart,
		Permanent: func(e supervisor.Exit) bool { return wrongUsage(e) && !h.trial.Load() },
	}, "gateway.log")
}

func (h *host) addEnvoy(admin *envoyadmin.Admin) error {
	binary, err := envoy.Binary(h.cfg.Envoy.Binary, h.getenv)
	if err != nil {
		return misconfigured{err}
	}
	params, err := envoy.ParamsFor(h.cfg)
	if err != nil {
		return misconfigured{err}
	}
	edge, base := edgeClient(), edgeURL(h.cfg)
	return h.add(supervisor.Spec{
		Name: envoyName,
		Command: func() (supervisor.Command, error) {
			params.Meter = h.meter
			bootstrap, err := envoy.Write(h.cfg.StateDir, params)
			if err != nil {
				return supervisor.Command{}, err
			}
			env := serviceEnv(h.environ)
			if h.meter != nil {
				env = append(env, envoy.SearchPath+"="+h.meter.Dir())
			}
			// Its sockets' names are relative to state_dir.
			return supervisor.Command{Path: binary, Args: envoy.Args(bootstrap, h.cfg), Dir: h.cfg.StateDir, Env: env}, nil
		},
		Ready: func(ctx context.Context) error {
			if err := admin.Live(ctx); err != nil {
				return err
			}
			_, err := edgeHealth(ctx, edge, base) // any answer: the engine may not be ready yet
			return err
		},
		ReadyTimeout: serviceReady,
		Live:         admin.Live, LiveInterval: liveInterval, LiveTimeout: liveTimeout, LiveMisses: liveMisses,
		StopTimeout: envoyStop, Restart: serviceRestart,
	}, "envoy.log")
}

// engineTarget is the engine that a first example is sent to.
func engineTarget(cfg *config.Config) string {
	if engines := cfg.EngineAddresses(); len(engines) > 0 {
		return engines[0]
	}
	return engineAddress(cfg)
}
