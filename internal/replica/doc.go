// Package replica lets several gateways behind one Envoy, or behind many, act as
// one: what one of them is asked or told reaches the one that holds the request.
//
// Each message goes through a [Bus] and arrives at most once. Nothing that is
// counted depends on it: leases and limits are in the shared store, use is in the
// ledger of the gateway that held the stream. What a lost message costs: the name of
// an early end (the row says aborted), a row in a list, a cut that must be asked for
// again.
//
// The caller must start [Group.Run] beside the gateway, and hand every entry of the
// proxy's log to [Group.Witness].
package replica
