package extproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/openai"
	"tollgate/internal/rpc"
)

// requestBody takes one piece of the body. Envoy keeps none of the pieces and,
// by its buffer filter, lets nothing of the request through to the engine before
// the body's end; the last piece is answered with the whole body as it was checked.
func (x *exchange) requestBody(ctx context.Context, piece []byte, end bool) (*outbound, error) {
	switch {
	case x.session == nil:
		return nil, errors.New("request body out of turn")
	case x.request != nil:
		return x.afterBody(ctx, piece, end)
	}
	x.whole = end
	if d := x.hold(piece); d != nil {
		return x.refuseSelf(d), nil
	}
	if !x.body.add(piece, end) {
		return requestPieceHeld, nil
	}
	x.body.stop()
	return x.check(ctx, piece)
}

// shortBody is the size in bytes up to which a body that comes whole is never
// refused for want of memory.
const shortBody = 64 << 10

// largeBody is the size in bytes above which few bodies are parsed at a time.
const largeBody = 1 << 20

// hold takes the memory that a piece needs.
func (x *exchange) hold(piece []byte) *admission.DenialError {
	if x.o.Bodies == nil {
		return nil
	}
	n := x.body.room(len(piece))
	if x.whole && len(x.body.pieces) == 0 {
		// It is not kept in pieces. A short one is held for no longer than it takes to
		// answer, so it needs no room: however full the memory is, ordinary requests pass.
		n = int64(len(piece))
		if n <= shortBody {
			return nil
		}
	}
	if n == 0 {
		return nil
	}
	room := x.o.Bodies.Take(x.session.Key().ID, n)
	switch room {
	case Granted:
		x.body.held += n
		return nil
	case KeyIsFull:
		x.o.Bodies.ended(room)
		return admission.Deny(admission.KeyBodies)
	case AllIsFull, TooSlow:
	}
	x.o.Bodies.ended(room)
	return admission.Deny(admission.Unavailable)
}

// check parses, reserves, records and rewrites: what vLLM receives is what was
// checked. last is the piece that completes the body.
func (x *exchange) check(ctx context.Context, last []byte) (*outbound, error) {
	body, parsed, err := x.parse(ctx, last)
	var bad *openai.BadRequestError
	switch {
	case errors.As(err, &bad):
		return x.refuseSelf(badBody(bad.Message, bad.Param)), nil
	case err != nil:
		return nil, fmt.Errorf("parse request: %w", err)
	}
	x.request = parsed
	if d := x.tooManyChoices(); d != nil {
		return x.refuseSelf(d), nil
	}
	err = x.session.Reserve(ctx, admission.Order{
		Model: parsed.Model, Format: parsed.Format, Stream: parsed.Stream,
		N: parsed.N, Prompts: parsed.Prompts, PromptBytes: parsed.PromptBytes,
		MaxTokens: parsed.MaxTokens, MinTokens: parsed.MinTokens, Meter: x.meterBy, Prompt: x.prompt,
	})
	x.prompt = nil
	var denied *admission.DenialError
	switch {
	case errors.As(err, &denied):
		return x.refuse(denied), nil
	case err != nil:
		x.o.Log.Error("cannot record a request, refused", "request_id", x.requestID, "error", err)
		return x.refuse(admission.Deny(admission.Unavailable)), nil
	}
	if err := x.boundRequest(); err != nil {
		return nil, err
	}
	if x.meterBy == "" {
		x.o.Metrics.metered.WithLabelValues(hostExtProc).Inc()
	}
	return x.direct(x.replaceRequest(body)), nil
}

// parse reads the body that last completes and writes the one for the engine. A
// body that came in pieces is joined for it, and while it is read and written takes
// twice its size more than it is counted with: so only a few are at a time.
func (x *exchange) parse(ctx context.Context, last []byte) (body []byte, parsed *openai.Request, err error) {
	limits := x.o.Limits
	limits.Buffer = x.bodyBuffer
	if x.o.IsolateCache {
		limits.CacheSalt = "tollgate-" + x.session.Key().ID
	}
	body = last
	if x.body.size > largeBody {
		select {
		case x.large <- struct{}{}:
			defer func() { <-x.large }()
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	if len(x.body.pieces) > 0 {
		x.joined = x.body.join()
		body = *x.joined
	}
	limits.Served = x.session.Resolve
	if parsed, err = openai.Parse(x.endpoint, body, limits); err == nil {
		if x.prompt = x.session.Prompt(x.o.IsolateCache); x.prompt != nil {
			parsed.WritePrompt(x.prompt)
		}
	}
	if x.joined != nil && err == nil && &parsed.Body[0] != &body[0] {
		rpc.Buffers.Put(x.joined) // what is needed of it is in the new body
		x.joined = nil
	}
	return body, parsed, err
}

// afterBody answers what comes after the body was complete by its own account:
// nothing but its end, and white space. Envoy has the checked body but not
// released it, so anything else can still be refused.
func (x *exchange) afterBody(ctx context.Context, piece []byte, end bool) (*outbound, error) {
	if len(bytes.TrimLeft(piece, " \t\r\n")) > 0 {
		x.status = 400
		if err := x.settle(ctx, ledger.Refused); err != nil {
			return nil, err
		}
		return x.refuse(badBody("the body goes on after the end of its JSON", "")), nil
	}
	if end {
		x.whole = true
		x.freeBody() // Envoy passes it on now
	}
	if len(piece) > 0 {
		return requestPieceHeld, nil
	}
	return requestBodyGoesOn, nil
}

// requestTrailers end a body as well as its last piece does; but what was not
// complete by then was never checked.
func (x *exchange) requestTrailers() (*outbound, error) {
	switch {
	case x.session == nil:
		return nil, errors.New("request trailers out of turn")
	case x.request == nil:
		x.body.stop()
		return x.refuseSelf(badBody("the request has no body, or its JSON does not end before the trailers", "")), nil
	}
	x.whole = true
	x.freeBody()
	return requestTrailersGoOn, nil
}

// tooSlow ends a request whose body does not come: the watch's answer.
func (x *exchange) tooSlow() {
	x.o.Bodies.ended(TooSlow)
	_ = x.send(x.refuseSelf(admission.Deny(admission.SlowBody))) // it fails where the connection is gone
}
