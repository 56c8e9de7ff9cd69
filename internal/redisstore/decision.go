package redisstore

import (
	"strconv"
	"time"

	"tollgate/internal/limit"
)

const (
	// maxLimit bounds limits that callers name, so that a Lua number holds them.
	maxLimit = int64(1) << 52
	// decisionValues is how many numbers a decision has, with the slots that the
	// lease holds after it.
	decisionValues = 15
)

func number(n int64) string { return strconv.FormatInt(n, 10) }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// capArgs are caps as the scripts read them.
func capArgs(c *limit.Caps) []string {
	args := make([]string, 0, 6)
	for _, n := range []int64{c.Global, c.Concurrent, c.Requests, c.Tokens, c.Quota} {
		args = append(args, number(min(n, maxLimit)))
	}
	return append(args, c.QuotaPeriod)
}

// sharedDecision is a decision of Redis with what it said beside it.
type sharedDecision struct {
	limit.Decision
	slots, wide int64 // that the lease holds
	used        int64 // the quota counter; -1: Redis does not know it
	unpaid      int64 // the key's debt and the limit below it
}

// decode reads the reply of acquire.lua and reserve.lua.
func decode(c *limit.Caps, r reply) (sharedDecision, error) {
	switch r.verdict {
	case "lease":
		return sharedDecision{}, limit.ErrLease
	case "unseeded":
		return sharedDecision{}, limit.ErrUnseeded
	case "ok", string(limit.Requests), string(limit.GlobalSlots), string(limit.KeySlots), string(limit.TokensWindow), string(limit.Quota):
	default:
		return sharedDecision{}, unexpected(r.verdict)
	}
	v, err := r.integers(decisionValues)
	if err != nil {
		return sharedDecision{}, err
	}
	wait, requests, requestsReset, tokens, tokensReset, reserved, used, held := v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
	d := sharedDecision{
		Decision: limit.Decision{
			RetryAfter: time.Duration(wait) * time.Microsecond, Debt: v[8], Need: v[9], Free: v[10], Granted: v[11],
			Requests: limit.Rate{Limit: limit.Unlimited}, Tokens: limit.Rate{Limit: limit.Unlimited}, Quota: limit.Rate{Limit: limit.Unlimited},
		},
		slots: v[12], wide: v[13], used: used, unpaid: v[14],
	}
	if r.verdict != "ok" {
		d.Denied = limit.Denial(r.verdict)
	}
	if c.Requests >= 0 {
		d.Requests = rate(c.Requests, requests, requestsReset)
	}
	if c.Tokens >= 0 {
		d.Tokens = rate(c.Tokens, tokens+reserved, tokensReset)
		if d.Debt > 0 {
			d.Tokens.Remaining = 0
		}
	}
	if c.Quota == 0 || c.Quota > 0 && used >= 0 {
		d.Quota = limit.Rate{Limit: c.Quota, Remaining: max(0, c.Quota-max(0, used)-held)}
	}
	return d, nil
}

func rate(limited, used, reset int64) limit.Rate {
	return limit.Rate{Limit: limited, Remaining: max(0, limited-used), Reset: time.Duration(reset) * time.Microsecond}
}
