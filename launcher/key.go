package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/google/renameio/v2"

	"tollgate/internal/config"
)

// engineKeyFile is the file in <state_dir>/run with the key that the launcher makes for
// its engine.
const engineKeyFile = "engine.key"

// makeEngineKey makes a random key for the engine that starts here, where the
// configuration names none: other users of this machine cannot use the engine then.
// Each start of the launcher makes a new key. From then on the configuration in memory
// names its file.
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

// gatewayEnv returns the environment of tollgate. It names the file of a key that the
// launcher made, because the configuration on disk does not.
func (h *host) gatewayEnv() []string {
	env := serviceEnv(h.environ)
	if h.madeKey != "" {
		env = append(env, config.EngineKeyEnv+"="+h.madeKey)
	}
	return env
}
