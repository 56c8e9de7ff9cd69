// Command tollgate is the service beside Envoy, and the tools for its keys, its
// ledger and its configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"

	"tollgate/internal/version"
)

// commands is the whole command line.
type commands struct {
	Config  string           `placeholder:"FILE" help:"Configuration file; default is CONFIG_FILE, then config/config.yaml."`
	Version kong.VersionFlag `help:"Print the version."`
	URL     string           `name:"url" env:"TOLLGATE_URL" placeholder:"URL" help:"Ask the gateway at URL, as https://gate.example; default is the one that runs on this host."`
	Key     string           `name:"key" env:"TOLLGATE_KEY" placeholder:"KEY" help:"Key for --url. A command line can be read by others: better set TOLLGATE_KEY, or write @FILE."`

	Serve      serveCmd      `cmd:"" help:"Run the service."`
	Keys       keysCmd       `cmd:"" help:"Manage the API keys."`
	Forget     forgetCmd     `cmd:"" help:"Erase a user: remove the keys, put a pseudonym in the place of the name."`
	Import     importCmd     `cmd:"" help:"Take over models and keys of another gateway."`
	Usage      usageCmd      `cmd:"" help:"Report the tokens and requests of the ledger."`
	Ledger     ledgerCmd     `cmd:"" help:"Check, reconcile and export the ledger."`
	Audit      auditCmd      `cmd:"" help:"Show and check the record of what people changed."`
	Status     statusCmd     `cmd:"" help:"Show how the gateway is: health, engines, processes, what runs."`
	Top        topCmd        `cmd:"" help:"Watch the running requests."`
	Requests   requestsCmd   `cmd:"" help:"Show requests that run or have ended, and cancel one."`
	Limits     limitsCmd     `cmd:"" help:"Show the limits of keys and how full they are: used/limit, - where there is none."`
	Logs       logsCmd       `cmd:"" help:"Show the last lines of a log."`
	Doctor     doctorCmd     `cmd:"" help:"Check this host: vLLM, GPU, ports, TLS, disk, Envoy, clock."`
	Engines    enginesCmd    `cmd:"" help:"Show the engines of the running service, add and remove them."`
	Envoy      envoyCmd      `cmd:"" help:"Print Envoy's configuration."`
	Completion completionCmd `cmd:"" help:"Print what makes a shell complete these commands."`
	Man        manCmd        `cmd:"" help:"Print the manual page."`
	// The name is taken by the flag's field.
	Versions versionCmd `cmd:"" name:"version" help:"Print the versions of this build, of Go, of Envoy and of the ledger."`
	// The name is taken by the flag's field.
	Conf configCmd `cmd:"" name:"config" help:"Check the configuration and the key file."`
}

func main() {
	if serves(os.Args[1:]) {
		easeTimers(os.Args, os.Environ())
	}
	runtime.UnlockOSThread() // see init
	os.Exit(run(os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process: all it touches is an argument, and it
// returns the exit status so that its deferred calls run.
func run(args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(args) == 0 {
		// Not knowing what to say is wrong usage, and help is the answer.
		_, _, _ = parse([]string{"--help"}, stderr, stderr)
		return exitMisconfigured
	}
	parsed, flags, err := parse(args, stdout, stderr)
	var left leave
	switch {
	case errors.As(err, &left):
		return int(left)
	case err != nil:
		fmt.Fprintf(stderr, "tollgate: %v\nTry: tollgate --help\n", err)
		return exitMisconfigured
	}
	env := &Env{Ctx: ctx, Getenv: getenv, Stdin: stdin, Stdout: stdout, Stderr: stderr, ConfigFlag: flags.Config, URL: flags.URL, Key: flags.Key}
	if err := parsed.Run(env); err != nil {
		fmt.Fprintf(stderr, "tollgate: %v\n", err)
		return status(err)
	}
	return exitDone
}

// parse reads the command line. When --help or --version answered it, the error
// is the exit status as [leave].
func parse(args []string, stdout, stderr io.Writer) (parsed *kong.Context, flags *commands, err error) {
	// kong leaves through its Exit function, which must not return.
	defer func() {
		if r := recover(); r != nil {
			left, ok := r.(leave)
			if !ok {
				panic(r)
			}
			err = left
		}
	}()
	flags = &commands{}
	parser, err := kong.New(flags,
		kong.Name("tollgate"),
		kong.Description("The front door of vLLM: API keys, limits, and an exact account of every token."),
		kong.Vars{"version": "tollgate " + version.String()},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(leave(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("build command line: %w", err)
	}
	kongplete.Complete(parser) // answers a shell that completes, and leaves
	parsed, err = parser.Parse(args)
	return parsed, flags, err
}

// leave carries an exit status out of kong.
type leave int

// Error is never shown.
func (l leave) Error() string { return fmt.Sprintf("exit status %d", int(l)) }
