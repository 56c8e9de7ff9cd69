package config

import (
	_ "embed"
	"strings"
)

//go:embed sample.yaml
var sample string

//go:embed sample_engine.txt
var sampleEngine string

// The note at the top of the sample, and its form for the sample in which two values
// differ from the default.
const (
	everyDefault = "Every value below is the default, so each line may be removed."
	mostDefaults = "Every value below but vllm.auto_start and vllm.launch_mode is the\n# default, so each other line may be removed."
)

// Sample is the file that [LoadOrCreate] writes: every key with its default and
// a comment. With simulated it starts the simulated engine.
func Sample(simulated bool) []byte {
	if !simulated {
		return []byte(sample)
	}
	text := strings.Replace(sample, everyDefault, mostDefaults, 1)
	before, after, _ := strings.Cut(text, "  auto_start: false")
	_, after, _ = strings.Cut(after, "  model: \"\"")
	_, after, _ = strings.Cut(after, "\n")
	return []byte(before + sampleEngine + after)
}
