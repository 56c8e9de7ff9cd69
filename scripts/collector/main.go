//go:build ignore

// Command collector is the OTLP receiver of the OpenTelemetry Collector with nothing
// behind it but standard output: one line of OTLP's JSON for each batch of spans. Tests
// look at spans as a real collector reads them. Its first line says that it listens.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "collector:", err)
		os.Exit(1)
	}
}

// run listens on the two addresses of the command line, for gRPC and HTTP, until a signal.
func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: collector GRPC-ADDRESS HTTP-ADDRESS")
	}
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	err := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{
		"grpc": map[string]any{"endpoint": os.Args[1]}, "http": map[string]any{"endpoint": os.Args[2]},
	}}).Unmarshal(config)
	if err != nil {
		return err
	}
	sink, err := consumer.NewTraces(new(printer).print)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := factory.CreateTraces(ctx, receivertest.NewNopSettings(component.MustNewType("otlp")), config, sink)
	if err != nil {
		return err
	}
	if err := r.Start(ctx, componenttest.NewNopHost()); err != nil {
		return err
	}
	fmt.Println("listening")
	<-ctx.Done()
	return r.Shutdown(context.Background())
}

// printer writes batches, one at a time.
type printer struct{ mu sync.Mutex }

func (p *printer) print(_ context.Context, batch ptrace.Traces) error {
	line, err := (&ptrace.JSONMarshaler{}).MarshalTraces(batch)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err = os.Stdout.Write(append(line, '\n'))
	return err
}
