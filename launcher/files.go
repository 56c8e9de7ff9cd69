package main

import (
	"fmt"

	"tollgate/envoy"
	"tollgate/internal/machine"
)

// Limits of open files: below the first nothing works, below the second the user should
// know how few clients fit.
const (
	leastFiles = 256
	fewFiles   = 8192
)

// allowFiles raises the limit of open files as far as this process may, for itself and
// its children, and explains the effect of a low limit.
func (h *host) allowFiles() error {
	if err := machine.RaiseFiles(); err != nil {
		h.log.Warn("the limit of open files stays as it is", "error", err)
	}
	n := machine.Files()
	const how = "raise it: `ulimit -Hn 65536` as root before the start, LimitNOFILE=65536 in a systemd unit, --ulimit nofile=65536 for a container"
	switch {
	case n == 0: // not known
	case n < leastFiles:
		return misconfigured{fmt.Errorf("the limit of open files is %d, and the stack needs %d; %s", n, leastFiles, how)}
	case n < fewFiles:
		h.log.Warn(fmt.Sprintf("the limit of open files is %d, so at most %d clients can be connected at once; %s", n, envoy.MaxConnections(n), how))
	}
	return nil
}
