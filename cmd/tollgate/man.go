package main

import (
	"github.com/alecthomas/kong"

	"tollgate/internal/manpage"
	"tollgate/internal/version"
)

// manCmd prints the manual page.
type manCmd struct{}

// Help is what --help says beside the flags.
func (*manCmd) Help() string {
	return `  tollgate man | man -l -
  tollgate man > /usr/local/share/man/man1/tollgate.1`
}

// Run prints it.
func (*manCmd) Run(k *kong.Context, env *Env) error {
	return manpage.Write(env.Stdout, k.Model, manpage.Page{
		Version: version.Release, About: "the front door of vLLM: API keys, limits, and an exact account of every token",
		Sections: [][2]string{
			{"EXIT STATUS", exitHelp},
			{"ENVIRONMENT", "TOLLGATE_URL and TOLLGATE_KEY stand for --url and --key, CONFIG_FILE for --config."},
			{"FILES", "config/config.yaml, config/api_keys.json and state/ in the working folder, unless the configuration names others."},
			{"SEE ALSO", "launcher(1)"},
		},
	})
}

// exitHelp explains the exit status of every command.
const exitHelp = `0: done, or stopped as asked. 1: failed; also what a check such as doctor, status, ledger verify, ledger reconcile or
audit verify has found. 2: a mistake in the configuration or on the command line; nothing was changed.`
