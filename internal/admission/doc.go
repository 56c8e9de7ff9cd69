// Package admission holds the use cases of the gateway: who may pass, what a
// request takes while it lives, and how it is settled when it ends.
//
// A request is admitted in two steps. [Gate.Admit] sees headers only and
// answers with a ticket, which is a provisional lease. The stream that carries
// the request claims the lease and becomes a [Session]: it reserves tokens,
// writes the intent, reports what was used and is closed exactly once. A second
// witness, the proxy's access log, says why a stream ended and closes what no
// session ever claimed.
package admission
