package main

import (
	"github.com/alecthomas/kong"

	"tollgate/internal/manpage"
	"tollgate/internal/version"
)

// manCmd prints the manual page; it reads no configuration.
type manCmd struct{}

// Run prints it.
func (manCmd) Run(k *kong.Context, p *process) error {
	return manpage.Write(p.stdout, k.Model, manpage.Page{
		Version: version.Release, About: "runs vLLM and, on one host, the whole of Tollgate", Sections: [][2]string{{"SEE ALSO", "tollgate(1)"}},
	})
}
