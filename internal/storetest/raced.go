//go:build race

package storetest

// raced: the race detector watches. It makes a history some ten times slower
// and sees in a few what it would see in all, so fewer are made.
const raced = true
