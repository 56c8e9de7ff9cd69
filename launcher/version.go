package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"tollgate/envoy"
	"tollgate/internal/version"
)

// versionCmd prints what a report of a fault needs: this build and the tollgate that
// it would start, which knows the schema of its ledger.
type versionCmd struct{}

// Help is what --help says beside the flags.
func (versionCmd) Help() string {
	return `Asks the tollgate beside the launcher, or in PATH, for its version and its ledger's.

  launcher version`
}

// Run prints the versions; it reads no configuration.
func (versionCmd) Run(p *process) error {
	_, err := fmt.Fprintf(p.stdout, "launcher       %s\ngo             %s\nenvoy          %s\n", version.String(), runtime.Version(), envoy.Version)
	if err != nil {
		return err
	}
	t, err := tollgateVersion(p)
	if err != nil {
		_, err = fmt.Fprintf(p.stdout, "tollgate       not known: %v\n", err)
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "tollgate       %s\nledger schema  %d\n", t.Tollgate, t.LedgerSchema)
	return err
}

// gatewayVersion is a part of the JSON of `tollgate version`.
type gatewayVersion struct {
	Tollgate     string `json:"tollgate"`
	LedgerSchema int    `json:"ledger_schema"`
}

// tollgateVersion asks the program that `launcher up` would start.
func tollgateVersion(p *process) (v gatewayVersion, err error) {
	self, err := os.Executable()
	if err != nil {
		return v, err
	}
	binary, err := tollgateBinary(self, p.environ)
	if err != nil {
		return v, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "version", "--output", "json").Output() //nolint:gosec // our own program
	if err != nil {
		return v, fmt.Errorf("%s version: %w", binary, err)
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return v, fmt.Errorf("%s version: %w", binary, err)
	}
	return v, nil
}
