package stack

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Collector is the OTLP receiver of a real OpenTelemetry collector. It may be killed and
// started again; what it has received stays.
type Collector struct {
	*Process
	GRPC, HTTP string // host:port
}

// Span is one span that a [Collector] received.
type Span struct {
	Trace, ID, Parent string // in hex; Parent is "" where the trace begins
	Name              string
	Begin, End        time.Time
	Failed            string // message of an error status, "" for none
	Attributes        map[string]any
	Resource          map[string]any // of the process that sent it
}

// NewCollector is a collector on free ports that is not started; what it receives goes
// into a file of dir.
func NewCollector(tb testing.TB, dir string) *Collector {
	tb.Helper()
	bin := program(tb, "COLLECTOR_BIN", "collector/*/collector", "scripts/build_collector.py", "collector-of-tollgate")
	address := func() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(FreePort(tb))) }
	c := &Collector{GRPC: address(), HTTP: address()}
	c.Process = &Process{tb: tb, name: "collector", log: filepath.Join(dir, "collector.out"), command: func() *exec.Cmd {
		return exec.Command(bin, c.GRPC, c.HTTP) //nolint:gosec // built for the tests
	}}
	return c
}

// StartCollector starts a collector and waits until it listens.
func StartCollector(tb testing.TB, dir string) *Collector {
	tb.Helper()
	c := NewCollector(tb, dir)
	c.Start()
	return c
}

// Start starts the collector, again after a Kill, and waits until it listens.
func (c *Collector) Start() {
	c.tb.Helper()
	before := strings.Count(c.Output(), "listening\n")
	c.Process.Start()
	Eventually(c.tb, 20*time.Second, "the collector to listen", func() bool {
		return strings.Count(c.Output(), "listening\n") > before
	})
}

// Spans are all spans that came so far, in the order in which they came.
func (c *Collector) Spans() (all []Span) {
	c.tb.Helper()
	b, err := os.ReadFile(c.log)
	if err != nil {
		c.tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "\n") {
			continue
		}
		var batch otlpBatch
		if err := json.Unmarshal([]byte(line), &batch); err != nil {
			c.tb.Fatalf("a batch of spans: %v", err)
		}
		for _, r := range batch.ResourceSpans {
			for _, scope := range r.ScopeSpans {
				for _, s := range scope.Spans {
					all = append(all, s.span(r.Resource.Attributes))
				}
			}
		}
	}
	return all
}

// Find waits for a span that fits.
func (c *Collector) Find(what string, fits func(*Span) bool) Span {
	c.tb.Helper()
	var found Span
	Eventually(c.tb, 20*time.Second, what, func() bool {
		for _, s := range c.Spans() {
			if fits(&s) {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// otlpBatch is what is needed of OTLP's JSON.
type otlpBatch struct {
	ResourceSpans []struct {
		Resource   struct{ Attributes otlpAttributes }
		ScopeSpans []struct{ Spans []otlpSpan }
	}
}

type otlpSpan struct {
	TraceID, SpanID, ParentSpanID, Name string
	StartTimeUnixNano, EndTimeUnixNano  json.Number
	Attributes                          otlpAttributes
	Status                              struct{ Message string }
}

type otlpAttributes []struct {
	Key   string
	Value struct {
		StringValue *string
		IntValue    *json.Number
		DoubleValue *float64
		BoolValue   *bool
	}
}

func (s *otlpSpan) span(resource otlpAttributes) Span {
	moment := func(n json.Number) time.Time {
		ns, _ := strconv.ParseInt(n.String(), 10, 64)
		return time.Unix(0, ns)
	}
	return Span{
		Trace: s.TraceID, ID: s.SpanID, Parent: s.ParentSpanID, Name: s.Name, Failed: s.Status.Message,
		Begin: moment(s.StartTimeUnixNano), End: moment(s.EndTimeUnixNano), Attributes: s.Attributes.values(), Resource: resource.values(),
	}
}

// values are the attributes by name; numbers are int64 or float64.
func (a otlpAttributes) values() map[string]any {
	out := map[string]any{}
	for _, e := range a {
		switch v := e.Value; {
		case v.StringValue != nil:
			out[e.Key] = *v.StringValue
		case v.IntValue != nil:
			out[e.Key], _ = v.IntValue.Int64()
		case v.DoubleValue != nil:
			out[e.Key] = *v.DoubleValue
		case v.BoolValue != nil:
			out[e.Key] = *v.BoolValue
		}
	}
	return out
}
