package main

import (
	"fmt"
	"io"
	"runtime"

	"tollgate/envoy"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/version"
)

// versionCmd prints what a report of a fault needs: this build, the Go that
// built it, the Envoy that it is written for, and the schema of its ledger.
type versionCmd struct {
	outputFlag
}

// versions is the JSON of `tollgate version`.
type versions struct {
	Tollgate     string `json:"tollgate"`
	Go           string `json:"go"`
	Envoy        string `json:"envoy"`
	LedgerSchema int    `json:"ledger_schema"`
}

// Run prints the versions; it reads no configuration.
func (c *versionCmd) Run(e *Env) error {
	v := versions{Tollgate: version.String(), Go: runtime.Version(), Envoy: envoy.Version, LedgerSchema: sqlitestore.SchemaVersion()}
	return showOne(e, c.Output, v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "tollgate       %s\ngo             %s\nenvoy          %s\nledger schema  %d\n", v.Tollgate, v.Go, v.Envoy, v.LedgerSchema)
		return err
	})
}
