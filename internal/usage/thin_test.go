//go:build !race

package usage_test

// thin divides what is tried by the long tests; see thin_race_test.go.
const thin = 1
