package reconcile

import (
	"context"
	"fmt"
	"net"
	"time"

	"tollgate/internal/vllm"
)

// askTimeout bounds one look at an engine.
const askTimeout = 5 * time.Second

// Client returns a client for [Take] and [Compare] that asks engine (host:port).
func Client(engine string) *vllm.Client {
	return vllm.New(vllm.Options{Address: engine, Timeout: askTimeout})
}

// scrape reads the token counters of an engine, summed over all its series:
// models and data-parallel ranks.
func scrape(ctx context.Context, client *vllm.Client) (Reading, error) {
	m, err := client.Metrics(ctx)
	if err != nil {
		return Reading{}, fmt.Errorf("scrape %s: %w", client.Address(), err)
	}
	return Reading{Counters: Counters{Prompt: m.Prompt, Generation: m.Generation}, Started: m.Started}, nil
}

// names returns the addresses under which records name an engine: the configured one,
// and those to which the proxy may have resolved it.
func names(ctx context.Context, engine string) map[string]bool {
	out := map[string]bool{engine: true}
	host, port, err := net.SplitHostPort(engine)
	if err != nil {
		return out
	}
	// Where the name does not resolve now, only records with the configured name are
	// found.
	addresses, _ := net.DefaultResolver.LookupHost(ctx, host)
	for _, a := range addresses {
		out[net.JoinHostPort(a, port)] = true
	}
	return out
}
