package main

import (
	"fmt"
	"os"
	"strings"
)

// completionCmd prints what makes a shell complete our commands.
type completionCmd struct {
	Shell   string `arg:"" enum:"bash,zsh,fish" help:"${enum}."`
	Program string `placeholder:"FILE" help:"Path that tollgate will have, for a package; default is that of this program."`
}

// Help is what --help says beside the flags.
func (*completionCmd) Help() string {
	return `  source <(tollgate completion bash)      # now; in ~/.bashrc for every shell
  source <(tollgate completion zsh)       # likewise in ~/.zshrc
  tollgate completion fish | source       # likewise in ~/.config/fish/config.fish`
}

// completionScripts ask the program itself, which knows its commands and flags
// ([kongplete.Complete] answers where COMP_LINE is set).
var completionScripts = map[string]string{
	"bash": "complete -C %[1]s tollgate\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -C %[1]s tollgate\n",
	"fish": "function __complete_tollgate\n    set -lx COMP_LINE (commandline -cp)\n    test -z (commandline -ct); and set COMP_LINE \"$COMP_LINE \"\n    %[1]s\nend\ncomplete -f -c tollgate -a \"(__complete_tollgate)\"\n",
}

// Run prints it.
func (c *completionCmd) Run(env *Env) error {
	self := c.Program
	if self == "" {
		var err error
		if self, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	_, err := fmt.Fprintf(env.Stdout, completionScripts[c.Shell], "'"+strings.ReplaceAll(self, "'", `'\''`)+"'")
	return err
}
