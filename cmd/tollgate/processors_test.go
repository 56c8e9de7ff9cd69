package main

import (
	"runtime"
	"testing"
)

func TestServiceComputesOnHalfOfTheProcessors(t *testing.T) {
	for _, tt := range []struct {
		env        string
		have, want int
	}{
		{"", 1, 1},
		{"", 2, 1},
		{"", 3, 2},
		{"", 16, 8},
		{"16", 16, 16}, // the runtime has obeyed it already
	} {
		before := runtime.GOMAXPROCS(tt.have)
		limitProcessors(func(string) string { return tt.env })
		got := runtime.GOMAXPROCS(before)
		if got != tt.want {
			t.Errorf("of %d with GOMAXPROCS=%q: got %d, want %d", tt.have, tt.env, got, tt.want)
		}
	}
}
