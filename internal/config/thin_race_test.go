//go:build race

package config_test

// thin divides the huge files of the tests: the parser is some ten times slower
// under the race detector, and has one goroutine.
const thin = 4
