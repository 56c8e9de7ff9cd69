package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"tollgate/internal/ledger"
)

const (
	// batchEvents is how many events one request to a sink has.
	batchEvents = 500
	// sinkTimeout bounds one request, sinkTries how often it is made.
	sinkTimeout = 30 * time.Second
	sinkTries   = 5
)

// events prints CloudEvents as JSON lines of batches, or sends them to a sink.
type events struct {
	ctx     context.Context //nolint:containedctx // of the command that it serves
	out     io.Writer
	to      string
	token   string
	subject ledger.Subject
	client  *http.Client
	wait    time.Duration // after the first failure, doubled after each
	rows    []ledger.Record
}

func newEvents(ctx context.Context, out io.Writer, to, tokenFile string, subject ledger.Subject) (*events, error) {
	e := &events{ctx: ctx, out: out, to: to, subject: subject, client: &http.Client{Timeout: sinkTimeout}, wait: time.Second}
	if to != "" {
		u, err := url.Parse(to)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, usageError("--to: write a URL as https://openmeter.example/api/v1/events")
		}
	}
	if tokenFile != "" {
		text, err := os.ReadFile(tokenFile) //nolint:gosec // the operator names it
		if err != nil {
			return nil, usageError("--token-file: %w", err)
		}
		e.token = strings.TrimSpace(string(text))
	}
	return e, nil
}

// Row implements [ledger.Exporter].
func (e *events) Row(r *ledger.Record) error {
	if e.rows = append(e.rows, *r); len(e.rows) < batchEvents {
		return nil
	}
	return e.flush()
}

// Close implements [ledger.Exporter].
func (e *events) Close() error { return e.flush() }

func (e *events) flush() error {
	if len(e.rows) == 0 {
		return nil
	}
	batch, err := ledger.Events(e.rows, e.subject)
	if err != nil {
		return err
	}
	e.rows = e.rows[:0]
	if e.to == "" {
		if _, err := e.out.Write(append(batch, '\n')); err != nil {
			return fmt.Errorf("print events: %w", err)
		}
		return nil
	}
	return e.send(batch)
}

// send delivers a batch, again where the sink was busy or did not answer.
func (e *events) send(batch []byte) error {
	wait := e.wait
	for try := 1; ; try++ {
		again, err := e.post(batch)
		if err == nil || !again || try == sinkTries {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-e.ctx.Done():
			t.Stop()
			return e.ctx.Err()
		case <-t.C:
		}
		wait *= 2
	}
}

// post sends a batch once; again says that it may succeed later.
func (e *events) post(batch []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(e.ctx, http.MethodPost, e.to, bytes.NewReader(batch))
	if err != nil {
		return false, fmt.Errorf("send events: %w", err)
	}
	req.Header.Set("Content-Type", "application/cloudevents-batch+json")
	if e.token != "" {
		req.Header.Set("Authorization", "Bearer "+e.token)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return true, fmt.Errorf("send events: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 == 2 {
		return false, nil
	}
	again = resp.StatusCode/100 == 5 || resp.StatusCode == http.StatusTooManyRequests
	return again, fmt.Errorf("send events: the sink answered %s", resp.Status)
}
