// Package lifetimes_test lets requests grow old on a gateway that does nothing
// else, and then end in each way there is. Envoy must live through all of them,
// and the ledger must hold the right end and count.
//
// Each request has a gateway of its own, with one worker in Envoy and silence
// around it: what breaks with the age of a stream has so far been seen only
// where no younger stream was started on the same worker. All gateways run at
// the same time, so that the suite takes little longer than one request.
//
// PROOF=1 adds younger and older requests, and five hundred one after the other.
package lifetimes_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// atOnce is how many gateways run at a time.
const atOnce = 100

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait; the number of processors does not bound them.
	if err := flag.Set("test.parallel", fmt.Sprint(atOnce)); err != nil {
		panic(err)
	}
	m.Run()
	stack.Clean()
}

// age is what a request reaches in `make test`: above the 50 s at which streams
// have been seen to break.
const age = 65 * time.Second

func TestOldRequestsEndWell(t *testing.T) {
	ages := []time.Duration{age}
	if os.Getenv("PROOF") != "" {
		t.Run("five hundred", fiveHundred)
		ages = []time.Duration{time.Second, 55 * time.Second, age, 130 * time.Second}
	}
	for _, a := range ages {
		t.Run(a.String(), func(t *testing.T) {
			for _, c := range cells(a, stack.Module(t)) {
				t.Run(c.name(), func(t *testing.T) {
					t.Parallel()
					c.start(t)
					c.run(t)
				})
			}
		})
	}
}

// rounds is how many requests each gateway of the long form gets, one after
// the other: with the cells, more than five hundred.
const rounds = 12

// fiveHundred asks one request after the other of every gateway, each 50 to
// 180 s old at its end.
func fiveHundred(t *testing.T) {
	for i, c := range cells(0, stack.Module(t)) {
		c.age = 50*time.Second + time.Duration(i*37%131)*time.Second // the same in each run
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			c.start(t)
			for range rounds {
				c.run(t)
			}
		})
	}
}
