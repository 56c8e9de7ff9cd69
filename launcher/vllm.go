package main

import (
	"context"
	"errors"
	"fmt"

	"tollgate/internal/config"
	"tollgate/internal/control"
)

// vllmCmd runs the engine alone.
type vllmCmd struct{}

// Help is what --help says beside the flags.
func (vllmCmd) Help() string {
	return `Runs vLLM as the vllm section of the configuration says, and the control API
(launcher.listen with launcher.token_file, or the Unix socket under state_dir).
The gateway's host names this one in engines and launchers, or this one tells
the gateways of launcher.gateways of itself.`
}

// Run returns when the engine has stopped.
func (vllmCmd) Run(p *process) error {
	cfg, err := config.Load(p.config)
	if err != nil {
		return err
	}
	if cfg.VLLM.LaunchMode != "simulated" && cfg.VLLM.Model == "" {
		return misconfigured{fmt.Errorf("%s: vllm.model names nothing to run", p.config)}
	}
	h, err := newHost(p, cfg)
	if err != nil {
		return err
	}
	defer h.close()
	h.warn()
	if !cfg.VLLM.AutoStart { // else that was among the warnings
		for _, w := range cfg.VLLM.Exposed() {
			h.log.Warn(w)
		}
	}
	adapters, err := h.addEngine()
	if err == nil {
		err = h.preflight(map[string]string{"vllm.port": engineAddress(cfg)})
	}
	switch {
	case errors.Is(err, errAsked):
		return nil // before anything was started
	case err != nil:
		return err
	}
	stopControl, err := h.serveControl(adapters)
	if err != nil {
		return err
	}
	defer stopControl()
	h.runEngine()
	if err := context.Cause(h.stopping); !errors.Is(err, errAsked) {
		return err
	}
	return nil
}

// runEngine returns when the engine has been stopped.
func (h *host) runEngine() {
	done := h.console.follow(h.waiting)
	err := h.start(engineName).child.WaitReady(h.stopping)
	done()
	leave := h.register()
	defer leave() // also where the engine never was ready
	if err == nil {
		fmt.Fprintf(h.stdout, "ready http://%s\n", engineAddress(h.cfg))
		h.sayUp("http://" + engineAddress(h.cfg))
		<-h.stopping.Done()
	} else {
		h.stop(err)
	}
	h.sayStopping()
	leave()
	done = h.console.follow(func() string { return "stopping: " + h.running() })
	defer done()
	h.unit(engineName).end()
}

// addEngineIfAsked adds the engine of vllm.auto_start and its address.
func (h *host) addEngineIfAsked(addresses map[string]string) (*control.Adapters, error) {
	if !h.cfg.VLLM.AutoStart {
		return nil, nil
	}
	addresses["vllm.port"] = engineAddress(h.cfg)
	return h.addEngine()
}
