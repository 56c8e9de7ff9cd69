package extproc

import (
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

// covered reports whether the key's quota holds the answer with the chunk that
// was just read, and remembers what it has come to.
func (x *exchange) covered(ctx context.Context, r usage.Report) bool {
	if !x.request.Stream || x.quotaSpent {
		return !x.quotaSpent
	}
	if !x.session.Covers(ctx, r) {
		// What was delivered before counts, and the prompt, which the engine has read.
		x.last.Counts.Prompt = max(x.last.Counts.Prompt, r.Counts.Prompt)
		x.last.Counts.Completion = max(0, x.last.Counts.Completion)
		x.last.Seen, x.last.Anomalies = x.last.Seen || r.Seen, r.Anomalies
		return false
	}
	if x.session.Metered() {
		x.last = r
	}
	return true
}

// spentWait is what Envoy gets to pass the last event on before the stream is
// cut, which ends the engine's work.
const spentWait = 50 * time.Millisecond

// outOfQuota puts an error event in the place of a chunk for which nothing is
// left. The record is written before it, and nothing passes after it.
func (x *exchange) outOfQuota(ctx context.Context) (*outbound, error) {
	if x.quotaSpent {
		return clearedChunk, nil
	}
	x.quotaSpent = true
	err := x.settle(ctx, ledger.Quota)
	stream := x.stream
	x.spentTimer = time.AfterFunc(spentWait, func() { _ = stream.WriteStatus(errCut) }) // it fails where the connection is gone
	return x.replaceChunk(openai.QuotaEvent(x.endpoint, x.request.WantsUsage && x.request.WantsRunning)), err
}
