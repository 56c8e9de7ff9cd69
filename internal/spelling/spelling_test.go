package spelling_test

import (
	"testing"

	"tollgate/internal/spelling"
)

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"lisen", "listen", 1},
		{"listten", "listen", 1},
		{"lisden", "listen", 1},
		{"kitten", "sitting", 3},
		{"abc", "xyz", 3},
	} {
		if got := spelling.Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
