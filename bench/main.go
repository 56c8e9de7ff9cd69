// Command bench measures what Tollgate costs, against plain Envoy and against
// the least that a server behind the same Envoy can do, in the same run on the
// same machine. docs/performance.md says how to read what it prints.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/alecthomas/kong"

	"tollgate/bench/internal/bare"
	"tollgate/bench/internal/load"
	"tollgate/bench/internal/rig"
	"tollgate/bench/internal/upstream"
)

// Exit codes.
const (
	exitOK     = 0 // measured
	exitFailed = 1 // something failed
	exitUsage  = 2 // wrong usage
	exitVoid   = 3 // measured, but the figures are void
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) //nolint:forbidigo // this is a main
}

type commands struct {
	Run      runCmd      `cmd:"" default:"withargs" help:"Measure and print the table."`
	Upstream upstreamCmd `cmd:"" hidden:"" help:"Play vLLM; the harness runs it."`
	Bare     bareCmd     `cmd:"" hidden:"" help:"Play a server that does nothing; the harness runs it."`
	Drive    driveCmd    `cmd:"" hidden:"" help:"Do one job from stdin; the harness runs it."`
}

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is main without the process.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var flags commands
	code := -1
	parser, err := kong.New(&flags, kong.Name("bench"),
		kong.Description("Measures what Tollgate costs: latency, CPU by process, memory, capacity."),
		kong.Writers(stdout, stderr), kong.Exit(func(c int) { code = c }))
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	parsed, err := parser.Parse(args)
	if code >= 0 {
		return code // --help
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(&streams{in: stdin, out: stdout, err: stderr})
	switch {
	case errors.Is(err, errVoid): // nothing failed, and nothing can be said
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitVoid
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	return exitOK
}

type upstreamCmd struct {
	Address string `arg:"" help:"HOST:PORT to listen on."`
}

// Run serves until it is stopped.
func (c *upstreamCmd) Run(ctx context.Context) error {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return upstream.New().Serve(ctx, lis)
}

type bareCmd struct {
	Socket string `arg:"" help:"The Unix socket to listen on."`
}

// Run serves until it is stopped.
func (c *bareCmd) Run(ctx context.Context) error { return bare.Serve(ctx, c.Socket) }

type driveCmd struct{}

// Run does one job. A holding job prints one line when all streams are open,
// and ends when stdin does.
func (*driveCmd) Run(ctx context.Context, s *streams) error {
	var j load.Job
	dec := json.NewDecoder(s.in)
	if err := dec.Decode(&j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	var held func()
	if j.Hold {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		var open atomic.Int64
		var said sync.Once
		held = func() {
			if open.Add(1) == int64(j.Closed) {
				said.Do(func() { fmt.Fprint(s.out, rig.HeldLine) })
			}
		}
		go func() {
			_, _ = io.Copy(io.Discard, io.MultiReader(dec.Buffered(), s.in))
			cancel()
		}()
	}
	res, err := load.Run(ctx, &j, held)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(s.out).Encode(res); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
