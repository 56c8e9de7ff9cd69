// Package vllmsim is a simulated vLLM 0.32: an HTTP server that answers as the
// recorded one did, byte shapes, framing, errors and counters included, with
// no model behind it.
//
// It is what `launcher simulate` runs, what `make run` talks to before there
// is a GPU, and what tests measure the gateway against. To that end it knows
// the truth about every answer it gave ([Truth]), and any answer can be made
// to go wrong in a chosen way ([Script]). Tokens are exact by construction:
// text is cut by a documented rule, and the same request to the same model
// always gets the same text.
package vllmsim
