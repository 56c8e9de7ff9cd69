// Package litellm reads the configuration and the keys of a LiteLLM proxy and says what
// they become here: engines and names of models, and keys under their old digests, so
// that clients keep their secrets. Whatever does not map is said in a [Note] and never
// dropped in silence. No secret and no digest is in a note.
package litellm

import (
	"fmt"
	"sort"
)

// Note is something that does not map, or maps in another way than one would think.
type Note struct {
	Where string `json:"where"` // a path in the configuration, or a key's name
	Text  string `json:"text"`
}

// notes collects them; the same one twice is one.
type notes struct {
	list []Note
	seen map[Note]bool
}

func (n *notes) add(where, format string, args ...any) {
	note := Note{Where: where, Text: fmt.Sprintf(format, args...)}
	if n.seen == nil {
		n.seen = map[Note]bool{}
	}
	if !n.seen[note] {
		n.seen[note] = true
		n.list = append(n.list, note)
	}
}

// sorted are the names of a map in order.
func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
