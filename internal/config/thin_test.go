//go:build !race

package config_test

// thin divides the huge files of the tests; see thin_race_test.go.
const thin = 1
