package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"tollgate/internal/vllmsim"
)

// simulateCmd has vLLM's names where vLLM has such an option.
type simulateCmd struct {
	Listen          string            `default:"127.0.0.1:8000" placeholder:"HOST:PORT" help:"Where to listen (default ${default})."`
	Model           []string          `default:"simulated" placeholder:"NAME" help:"Served names; answers carry the first (default ${default})."`
	MaxModelLen     int               `default:"131072" placeholder:"N" help:"Context in tokens (default ${default})."`
	FirstDelay      time.Duration     `placeholder:"TIME" help:"Pass before the first token, as 200ms."`
	Delay           time.Duration     `placeholder:"TIME" help:"Pass before each further token."`
	StartDelay      time.Duration     `placeholder:"TIME" help:"Refuse connections for so long first, as a server that loads its model."`
	ShutdownTimeout time.Duration     `placeholder:"TIME" help:"Let running requests go on for so long at a stop (default: abort them)."`
	MaxNumSeqs      int               `placeholder:"N" help:"Answer so many choices at once, let others wait."`
	MaxQueued       int               `name:"max-num-queued-reqs" placeholder:"N" help:"Refuse more than so many choices, running and waiting, with 503."`
	EnableLoRA      bool              `name:"enable-lora" help:"Load and unload adapters at run time."`
	MaxLoRARank     int               `name:"max-lora-rank" default:"16" placeholder:"N" help:"Refuse adapters of a higher rank (default ${default})."`
	Adapter         map[string]string `placeholder:"NAME=PATH" help:"An adapter that is loaded from the start."`
	ResolverDir     string            `name:"lora-resolver-dir" placeholder:"DIR" help:"Load an unknown model name from the folder of that name."`
	GenerateOnly    bool              `help:"No embedding, score and rerank routes."`
	ToolParser      bool              `default:"true" negatable:"" help:"Take tools, and suppress chunks without text as a tool parser does. A vLLM without --enable-auto-tool-choice is --no-tool-parser."`
	TokenDetails    bool              `name:"enable-prompt-tokens-details" help:"Say how many prompt tokens were cached."`
	ForceUsage      bool              `name:"enable-force-include-usage" help:"Usage in every chunk of every stream."`
	BlockSize       int               `name:"block-size" default:"128" placeholder:"N" help:"Tokens of a block of the prefix cache (default ${default})."`
	CacheBlocks     int               `name:"num-gpu-blocks-override" default:"4096" placeholder:"N" help:"Blocks of the prefix cache (default ${default})."`
	PrefillRate     int               `placeholder:"N" help:"Read so many prompt tokens a second that are not cached (default: at once)."`
	RequestIDHeader bool              `name:"enable-request-id-headers" help:"Answer with x-request-id."`
}

// Help is what --help says beside the flags.
func (simulateCmd) Help() string { return vllmsim.Help }

// simulatedExitError is an exit that the simulator was told to make.
type simulatedExitError struct{ code int }

func (e *simulatedExitError) Error() string { return "exit " + strconv.Itoa(e.code) + " as told" }

// Run serves until SIGTERM or SIGINT. The API key and the idle timeout come by
// environment, as vLLM has it.
func (c *simulateCmd) Run(p *process) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o := vllmsim.Options{
		Models: c.Model, MaxModelLen: c.MaxModelLen, APIKey: p.getenv("VLLM_API_KEY"),
		FirstDelay: c.FirstDelay, Delay: c.Delay, MaxNumSeqs: c.MaxNumSeqs, MaxQueued: c.MaxQueued,
		EnableLoRA: c.EnableLoRA, MaxLoRARank: c.MaxLoRARank, Adapters: c.Adapter, ResolverDir: c.ResolverDir,
		BlockSize: c.BlockSize, CacheBlocks: c.CacheBlocks, PrefillRate: c.PrefillRate,
		GenerateOnly: c.GenerateOnly, ToolParser: c.ToolParser, TokenDetails: c.TokenDetails, ForceUsage: c.ForceUsage,
		RequestIDHeader: c.RequestIDHeader, ShutdownTimeout: c.ShutdownTimeout, StartDelay: c.StartDelay,
	}
	if s := p.getenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE"); s != "" {
		seconds, err := strconv.Atoi(s)
		if err != nil || seconds < 0 {
			return misconfigured{fmt.Errorf("VLLM_HTTP_TIMEOUT_KEEP_ALIVE: %q is no number of seconds", s)}
		}
		o.IdleTimeout = time.Duration(seconds) * time.Second
	}
	fmt.Fprintf(p.stderr, "simulated vLLM serves %q on http://%s\n", c.Model, c.Listen)
	err := vllmsim.ListenAndServe(ctx, c.Listen, o)
	var exit *vllmsim.ExitError
	if errors.As(err, &exit) {
		return &simulatedExitError{code: exit.Code}
	}
	return err
}
