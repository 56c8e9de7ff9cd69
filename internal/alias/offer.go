package alias

import (
	"slices"
	"strings"

	"tollgate/internal/spelling"
)

// Rights are the names that somebody may use.
type Rights interface {
	// Allows reports whether one of the names may be used.
	Allows(names ...string) bool
}

// Allowed reports whether a request for a name may pass. The right to an alias
// opens what stands behind it, under the alias only: a model's own name needs a
// right of its own. A name that a pattern covers is allowed with the pattern, or
// by itself.
func (t *Table) Allowed(name string, r Rights, listed func(model string) bool) bool {
	if e := t.find(name, listed); e != nil {
		return r.Allows(e.Name, name)
	}
	return r.Allows(name)
}

// Offer lists what somebody may ask for, given the models that are listed and the
// names that their rights spell out: the aliases as they were given, patterns as
// they are written, then models, then spelt out names that a pattern covers.
func (t *Table) Offer(models, spelt []string, r Rights) []string {
	var out []string
	add := func(name string) {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, a := range t.All() {
		if r.Allows(a.Name) {
			add(a.Name)
		}
	}
	seen := make(map[string]bool, len(models)) // of an engine, so there may be many
	listed := func(name string) bool { return seen[name] }
	for _, m := range models {
		if seen[m] {
			continue
		}
		seen[m] = true
		if e := t.find(m, listed); e == nil && r.Allows(m) {
			out = append(out, m)
		}
	}
	for _, name := range spelt {
		if !Pattern(name) && t.find(name, listed) != nil {
			add(name)
		}
	}
	return out
}

const (
	// longestCompared bounds the names that are compared, and mostCompared how many:
	// a refusal must not cost more than an answer.
	longestCompared = 128
	mostCompared    = 1000
)

// Nearest is the name that is most similar to the name that was asked for: it differs
// in case, in a publisher's prefix or by a typing mistake. "" when none is close.
// Patterns are no names.
func Nearest(asked string, names []string) string {
	if len(asked) > longestCompared {
		return ""
	}
	best, at := "", len(asked)/3+1
	for _, name := range names[:min(len(names), mostCompared)] {
		if len(name) > longestCompared || Pattern(name) {
			continue
		}
		d := spelling.Distance(bare(asked), bare(name))
		if d < at || d == at && (best == "" || name < best) {
			best, at = name, d
		}
	}
	return best
}

// bare is a model's name without its publisher, in lower case.
func bare(name string) string {
	return strings.ToLower(name[strings.LastIndexByte(name, '/')+1:])
}
