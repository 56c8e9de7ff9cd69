//go:build race

package usage_test

// thin divides what is tried by the long tests. A meter belongs to one
// goroutine, so the race detector, which makes them ten times slower, need not
// see every split; make test runs this package once more without it.
const thin = 10
