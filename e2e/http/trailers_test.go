package http_test

import (
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// Trailers may come in the same read as the body, while the service has a piece
// of it, or long after.
func TestTrailersMayComeAtAnyTime(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	route := routes[0]
	for _, pause := range []time.Duration{0, 200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond} {
		for i := range 20 {
			a := send(t, s.Addr(), request{
				proto: h2, path: route.path, body: route.body, framing: trailers, pause: pause,
				headers: headersOf(trailers, "application/json", "none"),
			})
			if a.status != 200 || a.shape() != "answer" || a.fault != "" {
				t.Fatalf("trailers after %s, request %d: got %d (%s) %.200s", pause, i, a.status, a.fault, a.body)
			}
		}
	}
}
