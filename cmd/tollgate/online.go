package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"tollgate/internal/alias"
	"tollgate/internal/config"
	"tollgate/internal/fleet"
	"tollgate/internal/openai"
	"tollgate/internal/vllm"
)

// onlineTimeout bounds the question to all engines.
const onlineTimeout = 5 * time.Second

// askEngines asks the engines of the configuration, and those that came at run time,
// what they serve, and warns of targets that none of them lists.
func askEngines(env *Env, cfg *config.Config) error {
	f, err := fleet.New(fleet.Options{File: named(cfg), Path: cfg.InState(config.EnginesFile)})
	if err != nil {
		return fmt.Errorf("read engines: %w", err)
	}
	ctx, cancel := context.WithTimeout(env.Ctx, onlineTimeout)
	defer cancel()
	answers := make([]struct {
		models []openai.Model
		err    error
	}, len(f.Addresses()))
	var asking sync.WaitGroup
	for i, address := range f.Addresses() {
		asking.Go(func() {
			client := vllm.New(vllm.Options{Address: address, KeyFile: cfg.VLLM.APIKeyFile})
			defer client.Close()
			answers[i].models, answers[i].err = client.Models(ctx)
		})
	}
	asking.Wait()
	var served []string
	silent := 0
	for i, address := range f.Addresses() {
		if answers[i].err != nil {
			silent++
			fmt.Fprintf(env.Stderr, "warning: the engine at %s does not say what it serves: %v\n", address, answers[i].err)
		}
		for _, m := range answers[i].models {
			served = append(served, m.ID)
		}
	}
	for _, w := range unserved(cfg, served, silent) {
		fmt.Fprintf(env.Stderr, "warning: %s\n", w)
	}
	return nil
}

// named are the engines of the configuration file.
func named(cfg *config.Config) []fleet.Entry {
	var out []fleet.Entry
	for _, e := range cfg.Fleet() {
		out = append(out, fleet.Entry{Address: e.Address, Weight: e.Weight, Line: e.Line})
	}
	return out
}

// unserved says which models behind aliases no engine lists; silent is how many engines
// did not answer.
func unserved(cfg *config.Config, served []string, silent int) (warnings []string) {
	for i, a := range cfg.Aliases() {
		for _, model := range a.Models() {
			if slices.Contains(served, model) {
				continue
			}
			w := fmt.Sprintf("models[%d]: %s leads to %s, which no engine lists", i, a.Name, model)
			if silent > 0 {
				w += fmt.Sprintf(" (%d of them did not answer)", silent)
			}
			if near := alias.Nearest(model, served); near != "" {
				w += fmt.Sprintf("; did you mean %s?", near)
			}
			warnings = append(warnings, w)
		}
	}
	return warnings
}
