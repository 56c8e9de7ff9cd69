package vllmsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"
)

// ExitError is what [Serve] returns after POST /sim/exit.
type ExitError struct {
	Code int // the status that the process is to exit with
}

func (e *ExitError) Error() string { return "exit with status " + strconv.Itoa(e.Code) + " as asked" }

// stopGrace is how long aborted answers may take to be written.
const stopGrace = 2 * time.Second

// pollDrain is how often a drain looks whether it is over.
const pollDrain = 20 * time.Millisecond

// ListenAndServe is [Serve] on an address, which refuses connections for
// StartDelay first, as a real server does while it loads its model.
func ListenAndServe(ctx context.Context, addr string, opts Options) error {
	if opts.StartDelay > 0 {
		t := time.NewTimer(opts.StartDelay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
	var lc net.ListenConfig
	lis, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return Serve(ctx, lis, opts)
}

// Serve answers on lis, which it closes, until ctx ends or it is told to exit.
// At the end of ctx it stops as vLLM does at SIGTERM: after ShutdownTimeout
// the running requests are aborted, which ends their streams properly; then it
// returns nil. POST /sim/exit makes it cut everything and return an [ExitError].
func Serve(ctx context.Context, lis net.Listener, opts Options) error {
	return New(opts).Serve(ctx, lis)
}

// Serve is the function [Serve] for a server that is there already. It is
// called once.
func (s *Sim) Serve(ctx context.Context, lis net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		IdleTimeout:       s.opts.IdleTimeout,
		ReadHeaderTimeout: time.Minute,
		MaxHeaderBytes:    4 << 20,
		ErrorLog:          log.New(io.Discard, "", 0), // scripted cuts are not worth a line
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(lis) }() // ends with Shutdown or Close below
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case code := <-s.exited:
		l, _ := s.current()
		l.end(errCut)
		err := srv.Close()
		<-failed
		return errors.Join(&ExitError{Code: code}, err)
	case <-ctx.Done():
	}
	err := s.stop(context.WithoutCancel(ctx), srv)
	<-failed
	return err
}

// stop drains for ShutdownTimeout, aborts the rest and closes.
func (s *Sim) stop(ctx context.Context, srv *http.Server) error {
	if s.opts.ShutdownTimeout > 0 {
		draining := true
		if err := s.Script(Control{Draining: &draining}); err != nil {
			return err
		}
		s.drain(ctx)
	}
	s.Stop()
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("shut down: %w", err)
	}
	if err := srv.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// drain waits until nothing runs, at most for ShutdownTimeout.
func (s *Sim) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.ShutdownTimeout)
	defer cancel()
	tick := time.NewTicker(pollDrain)
	defer tick.Stop()
	for s.Stats().Running > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
