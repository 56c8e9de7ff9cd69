//go:build race

package sqlitestore_test

// thin divides how often the long tests are repeated: SQLite in Go is some ten
// times slower under the race detector. make test runs the package once more
// without it.
const thin = 10
