package config

import (
	_ "embed"
	"strings"
)

//go:embed sample.yaml
var sample string

//go:embed sample_engine.txt
var sampleEngine string

// Sample is the file that [LoadOrCreate] writes: every key with its default and
// a comment. With simulated it starts the simulated engine.
func Sample(simulated bool) []byte {
	if !simulated {
		return []byte(sample)
	}
	before, after, _ := strings.Cut(sample, "  auto_start: false")
	_, after, _ = strings.Cut(after, "  model: \"\"")
	_, after, _ = strings.Cut(after, "\n")
	return []byte(before + sampleEngine + after)
}
