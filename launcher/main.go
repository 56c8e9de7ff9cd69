// Command launcher runs an inference server and, on one host, the whole stack:
// vLLM, tollgate and Envoy. It starts them in order, keeps them running, drains
// and stops them, and leaves nothing behind.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"tollgate/internal/config"
	"tollgate/internal/supervisor"
	"tollgate/internal/version"
)

// Exit codes.
const (
	exitOK     = 0 // done, or stopped as asked
	exitFailed = 1
	exitUsage  = 2 // misconfigured or wrong usage
)

func main() {
	os.Exit(run(os.Args[1:], process{
		getenv: os.Getenv, environ: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	}))
}

// process holds everything outside that a command uses.
type process struct {
	getenv         func(string) string
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
	config         string // --config as given
}

type commands struct {
	Config  string           `short:"c" placeholder:"FILE" help:"The configuration file (default: CONFIG_FILE, then config/config.yaml)."`
	Version kong.VersionFlag `help:"Print the version."`

	Up       upCmd       `cmd:"" help:"Run the whole stack on this host: vLLM if vllm.auto_start, tollgate and Envoy."`
	VLLM     vllmCmd     `cmd:"" name:"vllm" help:"Run only vLLM and the control API: what a separate GPU host needs."`
	Upgrade  upgradeCmd  `cmd:"" help:"Replace the running tollgate by a new program; Envoy and vLLM stay."`
	Simulate simulateCmd `cmd:"" help:"Run the simulated vLLM alone."`
	Versions versionCmd  `cmd:"" name:"version" help:"Print the versions of the launcher, of Go, of Envoy and of tollgate."`
	Man      manCmd      `cmd:"" help:"Print the manual page."`
	Watch    watchCmd    `cmd:"" hidden:"" help:"Kill what a dead launcher left behind; the launcher runs it."`
}

const description = `Runs vLLM and, on one host, the whole of Tollgate.

Everything is configured in one YAML file; a missing one is written with
comments by "launcher up". When everything is ready one line is printed to
standard output: ready http://HOST:PORT. Ctrl-C lets live answers finish and
stops; a second Ctrl-C stops at once.

Exit codes: 0 stopped as asked, 1 failed, 2 misconfigured or wrong usage.`

// misconfigured is an error that the user can correct in the configuration.
type misconfigured struct{ error }

func (m misconfigured) Unwrap() error { return m.error }

// exited carries kong's exit code out of its parser.
type exited int

// run is main with its inputs and outputs as arguments; it returns the exit code.
func run(args []string, p process) (code int) {
	defer func() {
		if r := recover(); r != nil {
			c, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(c)
		}
	}()
	var c commands
	parser, err := kong.New(&c, kong.Name("launcher"), kong.Description(description), kong.Writers(p.stdout, p.stderr),
		kong.Vars{"version": version.String()}, kong.Exit(func(code int) { panic(exited(code)) }), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true}))
	if err != nil {
		fmt.Fprintln(p.stderr, "launcher:", err)
		return exitFailed
	}
	if slices.Contains(args, "simulate") {
		for _, flag := range parser.Model.Flags {
			flag.Hidden = flag.Hidden || flag.Name == "config" // it reads none
		}
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(p.stderr, "launcher: %v\nTry: launcher --help\n", err)
		return exitUsage
	}
	if c.Config != "" && ctx.Command() == "simulate" {
		fmt.Fprintln(p.stderr, "launcher: simulate reads no configuration, all is in its flags: launcher simulate --help; launcher up runs it as vllm.launch_mode: simulated says")
		return exitUsage
	}
	p.config = config.Path(c.Config, p.getenv)
	return exitCode(ctx.Run(&p), p.stderr)
}

// exitCode prints err and returns the exit code of the process.
func exitCode(err error, stderr io.Writer) int {
	var simulated *simulatedExitError
	var bad misconfigured
	var file *config.Error
	var gaveUp *supervisor.GaveUpError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &simulated):
		return simulated.code
	}
	fmt.Fprintln(stderr, "launcher:", strings.TrimSpace(err.Error()))
	switch {
	case errors.As(err, &bad), errors.As(err, &file):
		return exitUsage
	case errors.As(err, &gaveUp) && gaveUp.Exit.Code == exitUsage && gaveUp.Crashes == 1:
		return exitUsage // the child refused the configuration that we gave it
	}
	return exitFailed
}

// watchCmd is the watcher of [supervisor.Guard].
type watchCmd struct{}

func (watchCmd) Run(p *process) error { return supervisor.Watch(p.stdin) }
