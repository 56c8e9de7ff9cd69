package extproc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/envoycode"
	"tollgate/internal/ledger"
	"tollgate/internal/openai"
	"tollgate/internal/placement"
	"tollgate/internal/route"
	"tollgate/internal/rpc"
	"tollgate/internal/usage"
)

// exchange is the state of one stream, of one goroutine.
type exchange struct {
	o         *Options
	stream    rpc.Stream
	large     chan struct{}   // of the server
	send      func(any) error // sends an answer; the loop's, lent to the watch over the body
	cuttable  bool            // the session knows how to end the stream
	in        inbound         // the message being answered
	out       outbound        // the answer, where it is not a prepared one
	requestID string
	session   *admission.Session // nil on a stream that starts with a response: a local reply
	endpoint  openai.Endpoint
	request   *openai.Request
	prompt    *placement.Prompt // until the session has it
	body      arrival
	joined    *[]byte // of rpc.Buffers: a body that came in pieces
	rewritten *[]byte // of rpc.Buffers: the body for vLLM until it is handed to gRPC
	wantsBody bool    // the answer that asks for the body is about to be sent
	whole     bool    // Envoy has the end of the body too
	refused   bool    // answered in place of the engine: what comes now gets no answer
	status    int     // of the answer
	engine    string
	meter     *usage.Meter // nil until an answer is metered
	opaque    bool         // the answer's body passes unread
	foreign   *foreign     // of an error of the engine; else nil
	delivered int64        // bytes of the answer's body
	last      usage.Report // of a key with a quota: what was delivered of the answer
	keptBack  bool         // nothing passes any more, only last was delivered
	// quotaSpent: the answer has ended with an error event, and spentTimer cuts it.
	quotaSpent bool
	spentTimer *time.Timer
	settled    bool
	meterBy    string // the instance of the meter that is to have the answer; "": this stream
	handed     bool   // it has it
}

// close ends the session: the one deferred call of the stream.
func (x *exchange) close(ctx context.Context) {
	x.body.mu.Lock()
	x.body.stop()
	x.body.mu.Unlock()
	x.freeBody()
	if x.spentTimer != nil {
		x.spentTimer.Stop()
	}
	if x.session != nil {
		x.session.Close(ctx, x.outcome(ledger.Aborted))
	}
	if x.meter != nil {
		meters.Put(x.meter)
		x.meter = nil
	}
}

// sent is called after each answer has been handed to gRPC. From the first one on
// the stream may be cut, see [rpc.Stream].
func (x *exchange) sent() {
	x.in.free()
	if x.session != nil && !x.cuttable {
		x.cuttable = true
		x.session.OnCut(func() { _ = x.stream.WriteStatus(errCut) }) // it fails where the connection is gone
	}
	if x.wantsBody {
		x.wantsBody = false
		x.body.watch(x.tooSlow)
	}
	if x.request != nil && x.request.Body != nil {
		x.request.Body = nil
		x.freeBuffers()
		if x.whole {
			x.freeBody()
		}
	}
}

// bodyBuffer gives the memory of a rewritten body.
func (x *exchange) bodyBuffer(size int) []byte {
	x.rewritten = rpc.Buffers.Get(size)
	return (*x.rewritten)[:0]
}

// freeBody gives back all that the request's body holds.
func (x *exchange) freeBody() {
	x.freeBuffers()
	x.body.drop()
	if x.body.held > 0 {
		x.o.Bodies.Free(x.session.Key().ID, x.body.held)
		x.body.held = 0
	}
}

func (x *exchange) freeBuffers() {
	for _, b := range []**[]byte{&x.joined, &x.rewritten} {
		if *b != nil {
			rpc.Buffers.Put(*b)
			*b = nil
		}
	}
}

// meters are reused: a meter owns the buffers of one stream.
var meters = sync.Pool{New: func() any { return usage.NewMeter(usage.Options{}) }}

// step answers the message that came in; nil is no answer.
func (x *exchange) step(ctx context.Context) (*outbound, error) {
	if x.refused {
		return nil, nil // sent before Envoy had our refusal
	}
	switch x.in.field {
	case inResponseBody: // first: one per chunk
		return x.responseBody(ctx, x.in.body, x.in.end)
	case inRequestHeaders:
		return x.requestHeaders(ctx, &x.in.head, x.in.end)
	case inRequestBody:
		return x.requestBody(ctx, x.in.body, x.in.end)
	case inResponseHeaders:
		return x.responseHeaders(ctx, &x.in.head, x.in.end)
	case inResponseTrailers:
		return x.responseTrailers(ctx)
	case inRequestTrailers:
		return x.requestTrailers()
	}
	return nil, errors.New("a message of an unknown kind")
}

// requestHeaders claims the ticket and asks Envoy for what this request needs:
// the body of a POST, and the headers of the answer.
func (x *exchange) requestHeaders(ctx context.Context, h *head, end bool) (*outbound, error) {
	x.requestID = h.requestID
	r, ok := route.Find(h.method, h.path)
	if !ok {
		// A CONNECT matches no route, and ext_authz lets alone what has none.
		return unknownRoute, nil
	}
	x.endpoint = openai.Endpoint(r.Endpoint)
	session, err := x.o.claim(ctx, &h.ticket)
	switch {
	case errors.Is(err, admission.ErrTicket):
		x.o.Metrics.badTickets.Inc()
		return x.refuse(admission.Deny(admission.Unavailable)), nil
	case err != nil:
		return nil, fmt.Errorf("claim: %w", err)
	}
	x.session = session
	switch {
	case h.coding != "":
		return x.refuseSelf(compressed(h.coding)), nil
	case end:
		return x.refuseSelf(badBody(noBody, "")), nil
	}
	x.body.announced, x.wantsBody = h.contentLength, true
	switch {
	case h.meter == "":
		return wantRequestBody, nil
	case x.o.Meters == nil || !x.o.Meters.Connected(h.meter):
		return keepFromMeter, nil // another host's, or it has just come
	}
	x.meterBy = h.meter
	return wantRequestAlone, nil
}

// responseHeaders decides what the answer's body costs: metered when it is a
// 2xx of the engine, nothing otherwise. No answer of the engine passes, whatever
// its status, to a request that was not checked.
func (x *exchange) responseHeaders(ctx context.Context, h *head, end bool) (*outbound, error) {
	spoke := h.details == envoycode.ViaUpstream
	switch {
	case spoke && x.request == nil:
		return nil, errors.New("an answer to a request that was not checked")
	case x.session == nil:
		return responseHeadersGoOn, nil // a local reply to a request that never came here
	}
	x.freeBody() // where the body ended with trailers
	x.status, x.engine = h.status, h.engine
	x.session.ServedBy(h.engine)
	rates := x.rateHeaders()
	switch {
	case !spoke:
		cause := envoycode.Cause(h.details, false, h.status)
		return responseHeaders(rates, bodyNone), x.settle(ctx, localEnd(cause))
	case h.status < 200 || h.status > 299:
		if h.status == 503 && !h.retryAfter {
			rates = append(rates, openai.Header{Name: "retry-after", Value: "1"})
		}
		return x.engineError(h, end, rates), x.settle(ctx, ledger.Refused)
	case !x.readable(h.kind):
		return x.refuseAnswer(ctx)
	case x.request.Format == usage.Free:
		return responseHeaders(rates, bodyNone), x.settle(ctx, ledger.Complete)
	}
	x.startMeter(h)
	switch {
	case end:
		return responseHeaders(rates, bodyNone), x.settle(ctx, x.ending())
	case h.kind == eventStream:
		return streamHeaders(append(rates, unbuffered)), nil
	}
	return responseHeaders(rates, bodyStreamed), nil
}

// unbuffered makes nginx, and what has learned it from it, pass an event stream on
// as it comes.
var unbuffered = openai.Header{Name: "x-accel-buffering", Value: "no"}

// readable tells whether an answer of that kind can be metered: JSON, an event
// stream, or the bytes that the request asked for.
func (x *exchange) readable(k kind) bool {
	return k == jsonBody || k == eventStream || k == binary && x.request.Binary
}

// refuseAnswer keeps an answer of the engine from the client: nobody could say
// what is in it. Nothing is delivered, so nothing is charged.
func (x *exchange) refuseAnswer(ctx context.Context) (*outbound, error) {
	d := admission.Deny(admission.BadAnswer)
	x.status = openai.Denied(d.Reason).Status
	o := x.outcome(ledger.Refused)
	o.Unreadable = true
	x.settled = true
	if err := x.session.Settle(ctx, o); err != nil {
		return nil, err
	}
	return x.refuse(d), nil
}

// localEnd is the end of a request that Envoy answered itself.
func localEnd(c admission.Cause) ledger.EndReason {
	if r := c.EndReason(); r != "" {
		return r
	}
	return ledger.Refused
}

func (x *exchange) startMeter(h *head) {
	m, ok := meters.Get().(*usage.Meter)
	if !ok {
		m = usage.NewMeter(usage.Options{})
	}
	r := x.request
	m.Reset(usage.Options{
		Format: r.Format, SSE: h.kind == eventStream, Encoded: h.coding != "", Choices: r.N * r.Prompts, Prompts: r.Prompts,
		StripFinal: r.Stream && !r.WantsUsage, StripRunning: r.Stream && !r.WantsRunning,
	})
	x.meter, x.last.Counts = m, usage.None()
	// The accept-encoding of clients never reaches vLLM, so a coding comes from a proxy
	// in between.
	x.opaque = h.coding != "" || h.kind == binary
	if h.kind == binary && h.coding == "" && h.metadata != "" {
		m.Feed([]byte(h.metadata), true) // vLLM says there what a JSON body would have said
	}
}

// responseBody passes one chunk, and settles before it passes the end.
func (x *exchange) responseBody(ctx context.Context, chunk []byte, last bool) (*outbound, error) {
	if x.foreign != nil {
		return x.reshape(chunk, last), nil
	}
	if x.meter == nil {
		if x.session != nil && x.request != nil && !x.settled {
			x.o.Metrics.unmetered.Add(float64(len(chunk)))
		}
		return responseBodyGoesOn, nil
	}
	x.session.FirstByte()
	x.delivered += int64(len(chunk))
	if x.session.QuotaBound() && x.request.Stream {
		return x.meteredBody(ctx, chunk, last)
	}
	if x.opaque {
		return responseBodyGoesOn, x.settleAt(ctx, last)
	}
	forward, changed := x.meter.Feed(chunk, last)
	x.session.Progress(x.meter.Report().Counts)
	err := x.settleAt(ctx, last || x.meter.Ended())
	if !changed {
		return responseBodyGoesOn, err
	}
	return x.replaceChunk(forward), err
}

// settleAt settles where the end has come.
func (x *exchange) settleAt(ctx context.Context, end bool) error {
	if !end {
		return nil
	}
	return x.settle(ctx, x.ending())
}

func (x *exchange) responseTrailers(ctx context.Context) (*outbound, error) {
	if x.meter != nil {
		if err := x.settle(ctx, x.ending()); err != nil {
			return nil, err
		}
	}
	return responseTrailersGoOn, nil
}

// ending is what the answer's own bytes say of its end.
func (x *exchange) ending() ledger.EndReason {
	if x.meter == nil || x.opaque {
		return ledger.Complete
	}
	switch x.meter.Report().End {
	case usage.Done:
		return ledger.Complete
	case usage.EngineAborted:
		return ledger.EngineAbort
	case usage.Failed:
		return ledger.UpstreamError
	case usage.Open:
	}
	// The engine has ended its body without an end.
	return ledger.UpstreamAbort
}

// settle writes the record once; an error cuts the stream.
func (x *exchange) settle(ctx context.Context, reason ledger.EndReason) error {
	if x.settled {
		return nil
	}
	x.settled = true
	return x.session.Settle(ctx, x.outcome(reason))
}

func (x *exchange) outcome(reason ledger.EndReason) admission.Outcome {
	o := admission.Outcome{Reason: reason, Status: x.status, Engine: x.engine, Report: usage.Report{Counts: usage.None()}}
	if x.meter != nil {
		o.Report = x.meter.Report()
		if x.keptBack {
			o.Report = x.last
		}
		if x.meter.Unread() {
			o.Unread = x.delivered
		}
	}
	return o
}

func (x *exchange) rateHeaders() []openai.Header {
	return x.boundHeader(openai.LimitHeaders(x.session.Standing()))
}
