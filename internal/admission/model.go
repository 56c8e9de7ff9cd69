package admission

import (
	"strings"

	"tollgate/internal/apikey"
	"tollgate/internal/spelling"
)

const (
	// longestCompared bounds the names that are compared, and mostCompared how many:
	// a refusal must not cost more than an answer.
	longestCompared = 128
	mostCompared    = 1000
)

// nearest is the served name that the key may use and that is most similar to the name
// that was asked for: it differs in case, in a publisher's prefix or by a typing
// mistake. "" when none is close.
func nearest(asked string, names []string, key *apikey.Key) string {
	if len(asked) > longestCompared {
		return ""
	}
	best, at := "", len(asked)/3+1
	for _, name := range names[:min(len(names), mostCompared)] {
		if len(name) > longestCompared || !key.Allows(name) {
			continue
		}
		d := spelling.Distance(bareName(asked), bareName(name))
		if d < at || d == at && (best == "" || name < best) {
			best, at = name, d
		}
	}
	return best
}

// bareName is a model's name without its publisher, in lower case.
func bareName(name string) string {
	return strings.ToLower(name[strings.LastIndexByte(name, '/')+1:])
}
