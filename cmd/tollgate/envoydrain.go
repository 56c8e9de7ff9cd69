package main

import (
	"context"
	"fmt"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/envoyadmin"
)

// envoyDrainCmd lets an Envoy that no launcher runs finish what runs in it.
type envoyDrainCmd struct {
	Delay time.Duration `default:"0s" help:"Go on taking new connections for so long, until balancers in front have noticed."`
}

// Help is what --help says beside the flags.
func (*envoyDrainCmd) Help() string {
	return `Tells the Envoy of this host, through its admin socket in state_dir, to take no new
requests, and waits until none runs, at most for drain_timeout. Send it SIGTERM
then. For those who run Envoy without the launcher; in Kubernetes it is what a
preStop hook runs, with --delay for the time that a Service needs to notice.

  tollgate envoy drain --delay 5s && kill "$ENVOY_PID"`
}

// Run returns when no request runs.
func (c *envoyDrainCmd) Run(env *Env) error {
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	admin := envoyadmin.New(cfg.InState(config.EnvoyAdminSocket))
	if err := admin.Discourage(env.Ctx); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	select {
	case <-env.Ctx.Done():
		return fmt.Errorf("drain: %w", env.Ctx.Err())
	case <-time.After(c.Delay):
	}
	if err := admin.Refuse(env.Ctx); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	ctx, cancel := context.WithTimeout(env.Ctx, cfg.DrainTimeout)
	defer cancel()
	running := 0
	err = admin.Idle(ctx, func(requests int) { running = requests })
	if err != nil && ctx.Err() != nil && env.Ctx.Err() == nil {
		return fmt.Errorf("drain: %d requests still run after drain_timeout (%s) and are cut when Envoy stops", running, cfg.DrainTimeout)
	}
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	_, err = fmt.Fprintln(env.Stdout, "no request runs")
	return err
}
