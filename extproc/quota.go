package extproc

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/openai"
	"tollgate/internal/rpc"
	"tollgate/internal/usage"
)

// boundRequest sends the request with what it holds of its key's quota, where
// that is less than it may otherwise come to.
func (x *exchange) boundRequest() error {
	most, _ := x.session.Bound()
	if most == 0 {
		return nil
	}
	before := x.rewritten
	body, err := openai.Bound(x.endpoint, x.request.Body, most, openai.Limits{Buffer: x.bodyBuffer})
	if err != nil {
		return fmt.Errorf("bound request: %w", err) // it was parsed before
	}
	x.request.Body, x.request.MaxTokens = body, most
	if before != nil {
		rpc.Buffers.Put(before) // its bytes are in the new body
	}
	return nil
}

// boundHeader tells a client that its own bound was lowered.
func (x *exchange) boundHeader(set []openai.Header) []openai.Header {
	if most, lowered := x.session.Bound(); lowered {
		set = append(set, openai.Header{Name: "x-quota-max-tokens", Value: strconv.FormatInt(most, 10)})
	}
	return set
}

// meteredBody passes one chunk of a stream whose key has a quota, event by event:
// the first for which nothing is left is where it ends. What nobody can read counts
// by its size.
func (x *exchange) meteredBody(ctx context.Context, chunk []byte, last bool) (*outbound, error) {
	if x.quotaSpent {
		return clearedChunk, nil
	}
	var passed []byte
	for first, more := true, true; more; {
		event := chunk
		if i := bytes.Index(chunk, []byte("\n\n")); i >= 0 {
			event = chunk[:i+2]
		}
		chunk = chunk[len(event):]
		more = len(chunk) > 0
		forward, changed := x.meter.Feed(event, last && !more)
		covered, err := x.covered(ctx, x.meter.Report())
		if !covered {
			x.delivered -= int64(len(event) + len(chunk))
		}
		switch {
		case err != nil:
			return nil, err
		case !covered:
			return x.outOfQuota(ctx, passed)
		}
		if first && !more { // the usual chunk is one event
			err := x.settleAt(ctx, last || x.meter.Ended())
			if !changed {
				return responseBodyGoesOn, err
			}
			return x.replaceChunk(forward), err
		}
		passed = append(passed, forward...)
		first = false
	}
	return x.replaceChunk(passed), x.settleAt(ctx, last || x.meter.Ended())
}

// covered reports whether the key's quota holds what the answer has come to, and
// remembers it as delivered; an error where nobody can tell.
func (x *exchange) covered(ctx context.Context, r usage.Report) (bool, error) {
	unread := int64(0)
	if !x.meter.Follows() {
		unread = x.delivered
	}
	ok, err := x.session.Covers(ctx, r, unread)
	if ok {
		x.last = r
		x.session.Progress(r.Counts)
		return true, nil
	}
	x.keptBack = true
	// What was delivered before counts, and the prompt, which the engine has read.
	x.last.Counts.Prompt = max(x.last.Counts.Prompt, r.Counts.Prompt)
	x.last.Counts.Completion = max(0, x.last.Counts.Completion)
	x.last.Seen, x.last.Anomalies = x.last.Seen || r.Seen && x.meter.Follows(), r.Anomalies
	return false, err
}

// spentWait is what Envoy gets to pass the last event on before the stream is
// cut, which ends the engine's work.
const spentWait = 50 * time.Millisecond

// outOfQuota puts an error event in the place of what nothing is left for, behind
// what has passed of its chunk. The record is written before it, and nothing passes
// after it. A body that is no event stream, or is coded, just breaks off.
func (x *exchange) outOfQuota(ctx context.Context, passed []byte) (*outbound, error) {
	x.quotaSpent = true
	err := x.settle(ctx, ledger.Quota)
	stream := x.stream
	x.spentTimer = time.AfterFunc(spentWait, func() { _ = stream.WriteStatus(errCut) }) // it fails where the connection is gone
	switch {
	case x.meter.Follows():
	case len(passed) == 0:
		return clearedChunk, err
	default:
		return x.replaceChunk(passed), err
	}
	return x.replaceChunk(append(passed, openai.QuotaEvent(x.endpoint, x.request.WantsUsage && x.request.WantsRunning)...)), err
}
