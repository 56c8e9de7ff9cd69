package lifetimes_test

import (
	"fmt"
	"net/http"
	"syscall"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// end is one way in which a request ends when it has reached its age.
type end struct {
	name string
	// stream and whole: it is tried with a streamed answer, with one that is not.
	stream, whole bool
	// config is YAML beside the stack's own; %s is the age.
	config string
	// sim scripts the engine; %d is the time per token, in ms, at which so many
	// of them (0: [tokens]) take as long as the age.
	sim    string
	tokens int64
	// uploads: the request's body does not come to its end by itself.
	uploads bool
	// outlives: tollgate ends and comes back while the request runs.
	outlives bool
	// before prepares the gateway.
	before func(c *cell)
	// at ends the request at its age; nil: something else ends it then.
	at func(c *cell, o *open)
	// after puts the gateway back in order.
	after func(c *cell)
	// status is what the client sees, with and without streaming; 0 is no answer.
	status [2]int
	// reason is how the ledger calls it, with and without streaming; empty: there is no row.
	reason [2]ledger.EndReason
}

// quotaTokens is what a request may use whose quota ends with it: more than the
// gateway reserves for it at its beginning.
const quotaTokens = 400

// tokens is the length of an answer that lasts as long as the request.
const tokens = 20

// The scripts of the engine.
const (
	talks  = `"tokens":1000,"delay_ms":%d`
	silent = `"hang":true`
)

func both(r ledger.EndReason) [2]ledger.EndReason { return [2]ledger.EndReason{r, r} }

// ends are all ways in which a request has been seen to end, with the meter inside
// Envoy or without it. Add any further one here.
func ends(module bool) []end {
	// gone: the client has left before it could see an answer that is not streamed; cut:
	// another program has ended the request.
	ok, gone, cut, quiet := [2]int{200, 200}, [2]int{200, 0}, [2]int{200, 503}, [2]int{}
	leave := func(_ *cell, o *open) { o.leave() }
	return []end{
		{name: "complete", stream: true, whole: true, sim: fmt.Sprintf(`"tokens":%d,"delay_ms":%%d`, tokens), status: ok, reason: both(ledger.Complete)},
		{name: "complete after a slow upload", stream: true, whole: true, sim: `"tokens":3`, uploads: true, at: func(_ *cell, o *open) { o.finishBody() }, status: ok, reason: both(ledger.Complete)},
		{name: "complete for a slow reader", stream: true, sim: `"tokens":3,"big_event":24000000`, at: func(_ *cell, o *open) { o.read() }, status: ok, reason: both(ledger.Complete)},
		{name: "client leaves in its answer", stream: true, sim: talks, at: leave, status: ok, reason: both(ledger.ClientAbort)},
		{name: "client leaves in silence", stream: true, whole: true, sim: silent, at: leave, status: quiet, reason: both(ledger.ClientAbort)},
		{name: "client leaves in its upload", stream: true, uploads: true, at: leave, status: quiet},
		{name: "client's connection is lost", stream: true, whole: true, sim: talks, at: func(_ *cell, o *open) { o.reset() }, status: gone, reason: both(ledger.ClientAbort)},
		{name: "engine resets", stream: true, whole: true, sim: fmt.Sprintf(`"tokens":1000,"cut":"rst","cut_after":%d,"delay_ms":%%d`, tokens), status: cut, reason: both(ledger.UpstreamAbort)},
		{name: "engine closes", stream: true, whole: true, sim: fmt.Sprintf(`"tokens":1000,"cut":"fin","cut_after":%d,"delay_ms":%%d`, tokens), status: cut, reason: both(ledger.UpstreamAbort)},
		{name: "engine reports an error", stream: true, whole: true, sim: fmt.Sprintf(`"tokens":1000,"error_after":%d,"delay_ms":%%d`, tokens), status: [2]int{200, 500}, reason: [2]ledger.EndReason{ledger.UpstreamError, ledger.Refused}},
		{name: "engine stops", stream: true, whole: true, sim: fmt.Sprintf(`"tokens":1000,"engine_abort_after":%d,"delay_ms":%%d`, tokens), status: ok, reason: both(ledger.EngineAbort)},
		{name: "engine is silent", stream: true, whole: true, config: "request: {idle_timeout: %s}", sim: silent, status: [2]int{504, 504}, reason: both(ledger.Timeout)},
		{name: "engine falls silent", stream: true, config: "request: {idle_timeout: %s}", sim: `"pause_after":3`, status: ok, reason: both(ledger.Timeout)},
		{name: "body takes too long", stream: true, config: "request: {body_timeout: %s}", uploads: true, status: [2]int{408, 408}},
		{name: "body stops to come", stream: true, uploads: true, at: func(_ *cell, o *open) { o.stall() }, status: [2]int{408, 408}},
		{name: "body is too large", stream: true, config: "request: {max_body_mb: 1, body_timeout: 10m}", uploads: true, at: func(_ *cell, o *open) { o.tooMuch() }, status: [2]int{413, 413}},
		{name: "body is wrong", stream: true, uploads: true, at: func(_ *cell, o *open) { o.wrongBody() }, status: [2]int{400, 400}},
		{name: "cancelled", stream: true, whole: true, sim: talks, at: cancel, status: cut, reason: both(ledger.Cancelled)},
		{name: "cancelled in silence", stream: true, sim: silent, at: cancel, status: [2]int{503, 503}, reason: both(ledger.Cancelled)},
		{name: "key is revoked", stream: true, whole: true, sim: talks, at: switchKey(false), after: func(c *cell) { switchKey(true)(c, nil) }, status: cut, reason: both(ledger.Revoked)},
		{
			// The prompt has its part of the quota: paced for all of it, the answer would end before its time.
			name: "quota is used up", stream: true, sim: `"tokens":1000,"delay_ms":%d`, tokens: quotaTokens - 20,
			before: func(c *cell) { c.limit(true) }, after: func(c *cell) { c.limit(false) }, status: ok, reason: both(ledger.Quota),
		},
		gatewayEnd(module, "tollgate drains", "drain_timeout: 100ms", drain, ledger.Drained),
		gatewayEnd(module, "tollgate dies", "", kill, ledger.GatewayCrash),
	}
}

// gatewayEnd is the end of tollgate itself. By ext_proc it takes the request with it.
// The meter inside Envoy goes on: tollgate comes back, and the client leaves.
func gatewayEnd(module bool, name, config string, stop func(*cell, *open), reason ledger.EndReason) end {
	e := end{name: name, stream: true, whole: true, config: config, sim: talks}
	if !module {
		e.at, e.after, e.status, e.reason = stop, again, [2]int{200, 503}, both(reason)
		return e
	}
	e.outlives = true
	e.at = func(c *cell, o *open) { stop(c, o); again(c); o.leave() }
	e.status, e.reason = [2]int{200, 0}, both(ledger.ClientAbort)
	return e
}

// cancel ends the live requests as an administrator does.
func cancel(c *cell, _ *open) {
	for id := range c.s.Records() {
		if !c.known[id] {
			c.s.Admin(http.MethodDelete, "/admin/requests/"+id, "")
		}
	}
}

// switchKey enables or disables the client's key.
func switchKey(on bool) func(*cell, *open) {
	return func(c *cell, _ *open) {
		c.s.Admin(http.MethodPatch, "/admin/keys/ann", fmt.Sprintf(`{"enabled":%t}`, on))
	}
}

// limit gives the client's key a quota that it uses up at about the age of the
// request, or none.
func (c *cell) limit(on bool) {
	quota := "null"
	if on {
		used := int64(quotaTokens)
		for _, r := range c.s.Records() {
			if r.KeyID == "ann" {
				used += max(0, r.Counts.Prompt) + max(0, r.Counts.Completion)
			}
		}
		quota = fmt.Sprint(used)
	}
	c.s.Admin(http.MethodPatch, "/admin/keys/ann", `{"quota":`+quota+`}`)
}

func drain(c *cell, _ *open) {
	c.s.Tollgate.Signal(syscall.SIGTERM)
	c.s.Tollgate.Wait(20 * time.Second)
}

func kill(c *cell, _ *open) { c.s.Tollgate.Kill() }

func again(c *cell) {
	c.s.Tollgate.Start()
	stack.Eventually(c.s.TB(), 20*time.Second, "tollgate to be back", func() bool {
		resp, err := c.s.HTTP1.Get(c.s.URL + "/health")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}
