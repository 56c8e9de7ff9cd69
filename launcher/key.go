package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/google/renameio/v2"

	"tollgate/internal/config"
)

// engineKeyFile is where the key of an engine of ours lies, in <state_dir>/run.
const engineKeyFile = "engine.key"

// makeEngineKey gives the engine that is going to be started here a key that
// nobody else on this machine has, a new one at each start of the launcher,
// where the configuration names none. From then on it is as if the configuration
// named its file.
func (h *host) makeEngineKey() error {
	if !h.cfg.GetsKey() {
		return nil
	}
	path, err := filepath.Abs(filepath.Join(h.cfg.RunDir(), engineKeyFile))
	if err != nil {
		return fmt.Errorf("make the engine's key: %w", err)
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	if err := renameio.WriteFile(path, []byte("sk-"+hex.EncodeToString(b[:])+"\n"), 0o600, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("make the engine's key: %w", err)
	}
	h.cfg.VLLM.APIKeyFile, h.madeKey = path, path
	return nil
}

// gatewayEnv is the environment of tollgate, which cannot read of a key that we
// made in the configuration.
func (h *host) gatewayEnv() []string {
	env := serviceEnv(h.environ)
	if h.madeKey != "" {
		env = append(env, config.EngineKeyEnv+"="+h.madeKey)
	}
	return env
}
