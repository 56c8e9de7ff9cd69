package stack

import (
	"context"
	"net"
	"testing"

	"tollgate/internal/vllmsim"
)

// Engine is a simulated engine that a test can end and start again.
type Engine struct {
	Sim  *vllmsim.Sim // of the last start
	Addr string
	tb   testing.TB
	o    vllmsim.Options
	stop func()
}

// NewEngine starts an engine on a free port, until the end of the test.
func NewEngine(tb testing.TB, o vllmsim.Options) *Engine {
	tb.Helper()
	e := &Engine{tb: tb, o: o, stop: func() {}}
	e.Start()
	tb.Cleanup(e.Stop)
	return e
}

// Start begins anew, on the port that it had.
func (e *Engine) Start() {
	e.tb.Helper()
	at := e.Addr
	if at == "" {
		at = "127.0.0.1:0"
	}
	lis, err := net.Listen("tcp", at)
	if err != nil {
		e.tb.Fatal(err)
	}
	e.Addr, e.Sim = lis.Addr().String(), vllmsim.New(e.o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Sim.Serve(ctx, lis)
	}()
	e.stop = func() { cancel(); <-done; e.stop = func() {} }
}

// Stop ends it, whatever it answers.
func (e *Engine) Stop() { e.stop() }
