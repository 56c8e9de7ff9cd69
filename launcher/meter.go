package main

import (
	"errors"
	"fmt"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// chooseMeter decides where answers are metered, for an Envoy of that version ("" =
// not known), and says so in one line.
func (h *host) chooseMeter(version string) error {
	asked := h.cfg.Envoy.Meter
	if asked == config.MeterExtProc {
		h.log.Info("answers are metered by tollgate, as envoy.meter says")
		return nil
	}
	library, err := envoy.MeterLibrary(h.self, h.getenv)
	if err == nil && !envoy.MeterRuns(version) {
		if version == "" {
			version = "of an unknown version"
		}
		err = fmt.Errorf("there is no library of the meter for Envoy %s; `make envoy` fetches %s, which has one", version, envoy.Version)
	}
	switch {
	case err == nil:
		h.meter = &envoy.Meter{Library: library, Socket: config.MeterSocket, Sync: h.cfg.Ledger.Sync}
		h.log.Info("answers are metered inside Envoy", "library", library)
		return nil
	case asked == config.MeterModule:
		return misconfigured{fmt.Errorf("envoy.meter is module: %w; or write envoy.meter: auto", err)}
	case errors.Is(err, envoy.ErrNoLibrary):
		h.log.Info("answers are metered by tollgate (ext_proc): " + err.Error())
	default:
		h.log.Warn("answers are metered by tollgate (ext_proc): " + err.Error())
	}
	return nil
}
