// Package alias holds the names that an operator gives to models: which models
// stand behind a name, in what shares, and what takes over while none of them
// can answer. It knows no engine: callers say which models exist and which are
// ready.
package alias

import (
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
)

// Target is a model that serves a name.
type Target struct {
	Model  string
	Weight int // its share, relative to the other targets; at least 1
}

// Alias is one name and what stands behind it.
type Alias struct {
	// Name is what clients ask for: exact, or the beginning of a name followed by
	// one '*', which stands for any rest, an empty one too.
	Name string
	// Targets share the requests; at least one.
	Targets []Target
	// Fallback are models that are tried in this order while no target is ready.
	Fallback []string
}

// Pattern reports whether a name stands for all that begin like it.
func Pattern(name string) bool { return strings.HasSuffix(name, "*") }

// Matches reports whether the alias answers to a name. Upper and lower case
// differ, as they do in the names of models.
func (a *Alias) Matches(name string) bool {
	if head, ok := strings.CutSuffix(a.Name, "*"); ok {
		return strings.HasPrefix(name, head)
	}
	return a.Name == name
}

// Models are the targets and the fallbacks, each once.
func (a *Alias) Models() []string {
	var out []string
	for _, t := range a.Targets {
		out = append(out, t.Model)
	}
	for _, m := range a.Fallback {
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

// Table is a set of aliases. It is safe for concurrent use; nil is an empty one.
type Table struct {
	exact    map[string]*entry
	patterns []*entry // the longest first
	all      []*entry // as they were given
}

// longestName is the longest name in bytes that a pattern covers.
const longestName = 256

type entry struct {
	Alias
	turn atomic.Uint64
}

// New returns a table of aliases whose names differ and whose targets have
// weights; internal/config has checked that.
func New(aliases []Alias) *Table {
	t := &Table{exact: make(map[string]*entry, len(aliases))}
	for _, a := range aliases {
		e := &entry{Alias: a}
		t.all = append(t.all, e)
		if Pattern(a.Name) {
			t.patterns = append(t.patterns, e)
		} else {
			t.exact[a.Name] = e
		}
	}
	slices.SortStableFunc(t.patterns, func(a, b *entry) int { return len(b.Name) - len(a.Name) })
	return t
}

// All lists the aliases as they were given.
func (t *Table) All() []Alias {
	if t == nil {
		return nil
	}
	out := make([]Alias, len(t.all))
	for i, e := range t.all {
		out[i] = e.Alias
	}
	return out
}

// find returns the alias that answers to a name; nil when it means itself. An
// exact alias is first, then a model of that very name, then the pattern that
// has most of the name.
func (t *Table) find(name string, listed func(model string) bool) *entry {
	if t == nil {
		return nil
	}
	if e := t.exact[name]; e != nil {
		return e
	}
	if len(t.patterns) == 0 || listed(name) {
		return nil
	}
	if len(name) > longestName || strings.ContainsFunc(name, unicode.IsControl) {
		return nil // what follows the head of a pattern is the client's own, and is written down
	}
	for _, e := range t.patterns {
		if e.Matches(name) {
			return e
		}
	}
	return nil
}

// Find returns the alias that answers to a name. It is false where none does, and
// where the name is that of a listed model, which no pattern takes away.
func (t *Table) Find(name string, listed func(model string) bool) (Alias, bool) {
	if e := t.find(name, listed); e != nil {
		return e.Alias, true
	}
	return Alias{}, false
}

// Choice is the model that one request for a name goes to.
type Choice struct {
	// Model is the served name; empty where nothing of the alias is ready.
	Model string
	// Alias is the name of the alias as the operator wrote it; empty where the
	// request named the model itself.
	Alias string
	// Fallback: no target is ready, so a fallback serves.
	Fallback bool
}

// Choose returns the model for one request. Over many calls each ready target
// gets its share to within a few requests, evenly spread.
func (t *Table) Choose(name string, listed, ready func(model string) bool) Choice {
	e := t.find(name, listed)
	if e == nil {
		return Choice{Model: name}
	}
	if model, ok := e.target(ready); ok {
		return Choice{Model: model, Alias: e.Name}
	}
	for _, m := range e.Fallback {
		if ready(m) {
			return Choice{Model: m, Alias: e.Name, Fallback: true}
		}
	}
	return Choice{Alias: e.Name}
}

// target takes the next turn among the ready targets.
func (e *entry) target(ready func(string) bool) (string, bool) {
	total := 0
	only := ""
	count := 0
	for _, t := range e.Targets {
		if ready(t.Model) {
			total += t.Weight
			only = t.Model
			count++
		}
	}
	if count < 2 {
		return only, count == 1
	}
	// The multiples of the golden ratio, modulo 1, fill every interval at its
	// share and spread evenly from the first on, without a lock.
	const golden = 0x9e3779b97f4a7c15 // 2^64 ÷ the golden ratio
	at := float64(e.turn.Add(1)*golden) / math.MaxUint64 * float64(total)
	for _, t := range e.Targets {
		if !ready(t.Model) {
			continue
		}
		only = t.Model // the last one where rounding has led beyond the end, or one has just gone
		if at -= float64(t.Weight); at < 0 {
			break
		}
	}
	return only, true
}
