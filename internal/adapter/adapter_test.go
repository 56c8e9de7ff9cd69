package adapter_test

import (
	"strings"
	"testing"

	"tollgate/internal/adapter"
)

func TestValid(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "Support-v2.1_x": true, "0": true, strings.Repeat("a", adapter.MaxName): true,
		"": false, strings.Repeat("a", adapter.MaxName+1): false, ".a": false, "-a": false, "_a": false, "a..b": false, "a/b": false, "a b": false, "ä": false, "a\n": false, "a\x00": false,
	} {
		if got := adapter.Valid(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}
