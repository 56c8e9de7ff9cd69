// Package load drives a gateway: thousands of streams, in closed or open loop,
// over HTTP/1.1 or HTTP/2, and measures what a client sees of each.
package load

import (
	"time"

	"tollgate/bench/internal/histogram"
	"tollgate/bench/internal/script"
)

// Job is one piece of load. Either Closed or Rate is set.
type Job struct {
	URL   string // http://host:port, or https
	Key   string // sent as a bearer; empty sends none
	Model string
	HTTP2 bool // prior knowledge without TLS

	Closed   int           // workers, each with one request at a time; their starts are spread
	Rate     float64       // requests begun per second, whether or not earlier ones have ended
	Burst    int           // with Rate: so many of them begin at the same moment; 0 or 1 = evenly
	Duration time.Duration // requests begin for so long; those that run are waited for
	Hold     bool          // Closed streams are opened and held until the context ends

	Script script.Script // what the upstream answers
	Stream bool          // asks for an event stream
	Ask    bool          // asks for usage in every chunk
	Body   int           // bytes of prompt
	Abort  float64       // share of streams that the client leaves at a random chunk
	Cut    float64       // share of streams that the upstream cuts at a random chunk
	Seed   uint64        // of the two above
}

// Delivered is what one request brought.
type Delivered struct {
	Chunks   int  `json:"chunks"`
	Complete bool `json:"complete"` // it ended as it should
}

// Result is what a job has brought.
type Result struct {
	Requests int64               `json:"requests"` // begun
	Complete int64               `json:"complete"` // ended as they should
	Aborted  int64               `json:"aborted"`  // left by the client on purpose
	Cut      int64               `json:"cut"`      // cut by the upstream on purpose
	Chunks   int64               `json:"chunks"`   // with text
	Errors   map[string]int64    `json:"errors,omitempty"`
	Elapsed  time.Duration       `json:"elapsed"`
	TTFT     histogram.Histogram `json:"ttft"` // ns from the (planned) start to the first chunk, or to the whole JSON answer
	Lag      histogram.Histogram `json:"lag"`  // ns from the upstream's write to the client's read, every chunk but the first
	// Delivered is by the gateway's request id; requests without one are not in it.
	Delivered map[string]Delivered `json:"delivered,omitempty"`
}

// Failed is the number of requests that ended otherwise than asked for.
func (r *Result) Failed() int64 {
	var n int64
	for _, c := range r.Errors {
		n += c
	}
	return n
}
