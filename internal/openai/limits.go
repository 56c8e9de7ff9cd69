package openai

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/limit"
)

// sentence is the message of a denial that brings numbers or names, in OpenAI's manner;
// it is empty where the sentence of the reason is enough.
func sentence(d *admission.DenialError) string {
	switch d.Reason {
	case admission.InvalidKey:
		if d.DefaultKey {
			return "The default key is public, so it works only on the gateway's own machine, without a proxy in between, and only until a key of your own exists. Ask your administrator for a key."
		}
	case admission.ModelUnknown:
		return unknownModel(d.Model, d.Nearest)
	case admission.AddressRate:
		if d.Cap > 0 {
			return fmt.Sprintf("Rate limit reached on requests of this client address: limit %d a second.%s", d.Cap, tryAgain(d.RetryAfter))
		}
	case admission.RequestRate:
		return windowFull("requests", d.Requests, 1, d.RetryAfter)
	case admission.TokenRate:
		return tokensFull(d)
	case admission.GlobalSlots:
		if d.Cap > 0 {
			return fmt.Sprintf("The gateway is running as many requests at once as it may (limit %d)%s; try again shortly.", d.Cap, slotsNeeded(d))
		}
	case admission.KeySlots:
		if d.Cap > 0 {
			return fmt.Sprintf("This key is running as many requests at once as it may (limit %d)%s; wait for one to end and try again.", d.Cap, slotsNeeded(d))
		}
	case admission.QuotaSpent:
		return quotaSpent(d)
	case admission.MissingKey, admission.MalformedKey, admission.NotAdmin, admission.BadRequest, admission.KeyBodies, admission.SlowBody,
		admission.UnsupportedMedia, admission.BadAnswer,
		admission.NotFound, admission.WrongMethod, admission.OtherProtocol, admission.TooLarge,
		admission.Unavailable, admission.EngineUnavailable, admission.Cancelled:
	}
	return ""
}

// longestName bounds how much of a model's name is repeated to its client.
const longestName = 256 // bytes

func unknownModel(model, nearest string) string {
	if model == "" {
		return ""
	}
	if len(model) > longestName {
		model = strings.ToValidUTF8(model[:longestName], "") + "..."
	}
	hint := ""
	if nearest != "" {
		hint = " Did you mean '" + nearest + "'?"
	}
	return "The model '" + model + "' does not exist or this key may not use it." + hint + " GET /v1/models lists the names."
}

// windowFull explains a full limit per minute with its numbers. The used amount
// includes the reservations of running requests.
func windowFull(what string, r limit.Rate, requested int64, wait time.Duration) string {
	if r.Limit <= 0 {
		return ""
	}
	text := fmt.Sprintf("Rate limit reached on %s per minute of this key: limit %d, used %d", what, r.Limit, r.Limit-max(0, r.Remaining))
	if requested > 0 {
		text += fmt.Sprintf(", requested %d", requested)
	}
	return text + "." + tryAgain(wait)
}

// slotsNeeded says how many slots a request needs: n times the number of its prompts.
func slotsNeeded(d *admission.DenialError) string {
	if d.Need <= 1 {
		return ""
	}
	return fmt.Sprintf(": this request needs %d more, one for each choice of each prompt, and %d are free", d.Need, d.Free)
}

// tokensFull explains why tokens are refused: the key has a debt, the request is larger
// than the whole limit, or the minute is used up.
func tokensFull(d *admission.DenialError) string {
	r := d.Tokens
	if r.Limit <= 0 {
		return ""
	}
	if d.Debt > 0 {
		return fmt.Sprintf("Rate limit reached on tokens per minute of this key: limit %d, and what was used lately is %s minutes' worth. Please try again in %s, at %s.",
			r.Limit, strconv.FormatFloat(1+float64(d.Debt)/float64(r.Limit), 'f', 1, 64), resetTime(d.RetryAfter),
			time.Now().Add(d.RetryAfter).UTC().Format("15:04:05 UTC"))
	}
	text := windowFull("tokens", r, d.Requested, d.RetryAfter)
	if d.Requested > r.Limit {
		text += " It asks for more than the whole limit, so it passes only when nothing else was used for a minute; a smaller max_tokens or prompt passes sooner."
	}
	return text
}

func quotaSpent(d *admission.DenialError) string {
	q := d.Quota
	if q.Limit <= 0 {
		return ""
	}
	text := fmt.Sprintf("You exceeded the token quota of this key: limit %d, used %d", q.Limit, q.Limit-max(0, q.Remaining))
	if d.QuotaResets.IsZero() {
		return text + ". Ask your administrator to raise it."
	}
	return text + "; it resets at " + d.QuotaResets.UTC().Format(time.RFC3339) + ". Ask your administrator to raise it, or wait until then."
}

func tryAgain(wait time.Duration) string {
	if wait <= 0 {
		return " Try again shortly."
	}
	return " Please try again in " + resetTime(wait) + "."
}

// said returns the limits that a denial knows. A denial that came before the key was
// known has none. A zero Rate is a limit of zero only where that limit refused;
// elsewhere it was not filled in.
func said(d *admission.DenialError) admission.Standing {
	none := limit.Rate{Limit: limit.Unlimited}
	st := d.Standing
	switch d.Reason {
	case admission.MissingKey, admission.MalformedKey, admission.InvalidKey, admission.NotAdmin, admission.AddressRate,
		admission.NotFound, admission.WrongMethod, admission.OtherProtocol, admission.TooLarge:
		return admission.Standing{Requests: none, Tokens: none, Quota: none}
	case admission.RequestRate, admission.TokenRate, admission.GlobalSlots, admission.KeySlots, admission.QuotaSpent,
		admission.ModelUnknown, admission.BadRequest, admission.KeyBodies, admission.SlowBody, admission.UnsupportedMedia,
		admission.Unavailable, admission.EngineUnavailable, admission.BadAnswer, admission.Cancelled:
	}
	for _, l := range []struct {
		rate    *limit.Rate
		refuses admission.Reason
	}{{&st.Requests, admission.RequestRate}, {&st.Tokens, admission.TokenRate}, {&st.Quota, admission.QuotaSpent}} {
		if *l.rate == (limit.Rate{}) && d.Reason != l.refuses {
			*l.rate = none
		}
	}
	return st
}

// LimitHeaders writes x-ratelimit-limit, -remaining and -reset for requests and
// tokens per minute, and x-quota-limit, -remaining and, where it has a period,
// -reset. A limit that is [limit.Unlimited] has none.
func LimitHeaders(st admission.Standing) []Header {
	h := appendRate(appendRate(nil, "requests", st.Requests), "tokens", st.Tokens)
	q := st.Quota
	if q.Limit == limit.Unlimited {
		return h
	}
	h = append(h,
		Header{"x-quota-limit", strconv.FormatInt(q.Limit, 10)},
		Header{"x-quota-remaining", strconv.FormatInt(max(0, q.Remaining), 10)})
	if q.Reset > 0 {
		// In whole seconds: a period is at least a day.
		h = append(h, Header{"x-quota-reset", resetTime(time.Duration(ceil(q.Reset, time.Second)) * time.Second)})
	}
	return h
}

func appendRate(h []Header, what string, r limit.Rate) []Header {
	if r.Limit == limit.Unlimited {
		return h
	}
	return append(h,
		Header{"x-ratelimit-limit-" + what, strconv.FormatInt(r.Limit, 10)},
		Header{"x-ratelimit-remaining-" + what, strconv.FormatInt(max(0, r.Remaining), 10)},
		Header{"x-ratelimit-reset-" + what, resetTime(r.Reset)})
}

// resetTime writes a duration as OpenAI does (6m0s, 1.5s, 120ms, 0s), rounded
// up to the millisecond.
func resetTime(d time.Duration) string {
	if d <= 0 {
		return "0s"
	}
	return (time.Duration(ceil(d, time.Millisecond)) * time.Millisecond).String()
}

// ceil counts the units that cover a positive d.
func ceil(d, unit time.Duration) int64 {
	n := int64(d / unit)
	if d%unit > 0 {
		n++
	}
	return n
}

// QuotaEvent returns the last bytes of a stream whose key has used up its quota: an
// error event in the engine's form, and the end of the stream. unheld means that the
// bytes before may stop inside an event; QuotaEvent then closes that event first.
func QuotaEvent(ep Endpoint, unheld bool) []byte {
	r := Denied(admission.QuotaSpent)
	var b []byte
	if unheld {
		b = append(b, "\n\n"...)
	}
	if ep.Anthropic() {
		b = append(b, "event: error\n"...)
	}
	b = append(b, "data: "...)
	b = append(b, Body(ep, r.Message, r.Type, "", r.Code)...)
	b = append(b, "\n\n"...)
	if ep.choices() {
		b = append(b, "data: [DONE]\n\n"...)
	}
	return b
}
