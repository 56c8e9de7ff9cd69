package extproc

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
	"tollgate/internal/usage"
)

// Meters are the meters inside Envoys, as far as this adapter needs them.
type Meters interface {
	// Connected reports whether the meter of that instance can be spoken to.
	Connected(instance string) bool
	// Cut asks it to end a stream.
	Cut(instance, leaseID string)
}

// errGone means that the stream of a request ended before its answer was handed over.
var errGone = errors.New("the meter has seen the end of the request already")

// mostChoices is how many choices a meter follows.
const mostChoices = 1 << 20

// formats are the words for the shapes of answers.
var formats = map[usage.Format]string{
	usage.Chat: "chat", usage.Completions: "completions", usage.Responses: "responses", usage.Messages: "messages",
	usage.Pooling: "pooling", usage.Free: "free",
}

// handOver makes the answer to the end of the request's body the last one: the meter
// inside Envoy, which has registered the request, learns with it what to do with the
// engine's answer. From here on the gate hears of the request by its link.
func (x *exchange) handOver(ctx context.Context, out *outbound) (*outbound, error) {
	if x.meterBy == "" || !x.whole || x.request == nil || x.refused {
		return out, nil
	}
	fields := x.plan()
	meters, instance, lease := x.o.Meters, x.meterBy, x.session.LeaseID()
	if !x.session.HandOver(ctx, instance, func() { meters.Cut(instance, lease) }) {
		return nil, errGone
	}
	x.handed = true
	x.o.Metrics.metered.WithLabelValues(hostModule).Inc()
	if out.prepared != nil { // shared: it must not be changed
		return &outbound{prepared: append(appendMetadata(nil, meterTold, fields...), out.prepared...)}, nil
	}
	out.meta = appendMetadata(out.meta, meterTold, fields...)
	return out, nil
}

// plan is what the meter is told.
func (x *exchange) plan() []field {
	r := x.request
	granted, prompted := x.session.Allowance()
	watched := granted >= 0 && r.Stream
	allowance := "- -"
	if watched {
		allowance = strconv.FormatInt(granted, 10) + " " + strconv.FormatInt(prompted, 10)
	}
	plan := strings.Join([]string{"1", formats[r.Format], strconv.Itoa(r.N * r.Prompts), strconv.Itoa(r.Prompts), flags(x.endpoint, r), allowance}, " ")
	fields := []field{{"plan", plan}, {"headers", headerLines(x.rateHeaders())}}
	if watched {
		fields = append(fields, field{"spent", string(openai.QuotaEvent(x.endpoint, r.WantsUsage && r.WantsRunning))})
	}
	return fields
}

// flags are the letters of a plan; "-" for none.
func flags(ep openai.Endpoint, r *openai.Request) string {
	var letters []byte
	for _, f := range []struct {
		letter byte
		set    bool
	}{
		{'f', r.Stream && !r.WantsUsage}, {'r', r.Stream && !r.WantsRunning}, {'b', r.Binary}, {'a', ep.Anthropic()},
	} {
		if f.set {
			letters = append(letters, f.letter)
		}
	}
	if len(letters) == 0 {
		return "-"
	}
	return string(letters)
}

// headerLines are the headers of the answer: what is set, and the names of what is
// removed.
func headerLines(set []openai.Header) string {
	var b strings.Builder
	for _, h := range set {
		b.WriteString(h.Name + ": " + h.Value + "\n")
	}
	for _, name := range enginesCORS {
		b.WriteString(name + "\n")
	}
	return b.String()
}

// tooManyChoices refuses what no meter follows; nil for all else.
func (x *exchange) tooManyChoices() *admission.DenialError {
	if x.meterBy == "" || x.request.N*x.request.Prompts <= mostChoices {
		return nil
	}
	return badBody("n times the number of prompts is more than "+strconv.Itoa(mostChoices), "n")
}
