package main

import "runtime"

// limitProcessors lets the service compute on half of the processors that this
// process may use, rounded up. GOMAXPROCS in the environment goes before.
//
// A message of Envoy is little work, and handing it from one processor's queue
// to the next costs as much as the work itself. Envoy spends at least as much
// on every message as the service does, so at full load the service cannot get
// more than this half anyway; see docs/decisions/0011-processors.md.
func limitProcessors(getenv func(string) string) {
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(half(runtime.GOMAXPROCS(0)))
	}
}

// half is n/2 rounded up, so that one processor stays one.
func half(n int) int { return (n + 1) / 2 }
