//go:build !race

package sqlitestore_test

// thin divides how often the long tests are repeated; see thin_race_test.go.
const thin = 1
