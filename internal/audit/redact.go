package audit

import (
	"encoding/json"
	"strconv"
)

// ActionForget is the action of the entry that tells of a person who was forgotten.
const ActionForget = "user.forget"

// Redactions are entries in which names were replaced, by their numbers: the digest of
// what such an entry says now. An entry of [ActionForget] has them, so that a later
// entry of the chain vouches for every changed one, and nothing else may differ.
type Redactions map[int64]string

// redaction is what the entry of [ActionForget] has as After.
type redaction struct {
	Redacted map[string]string `json:"redacted"`
}

// Forget replaces names in entries, in place, and returns those that it has changed. It
// takes notes out of entries about a name, because notes are free text. Hashes stay:
// they are of the entry as it was.
func Forget(entries []Entry, names map[string]string) (changed []Entry) {
	for _, e := range entries {
		was := e.digest()
		_, about := names[e.Target]
		if _, by := names[e.Who]; by {
			e.From = ""
		}
		e.Target, e.Who = renamed(names, e.Target), renamed(names, e.Who)
		e.Before, e.After = without(e.Before, names, about), without(e.After, names, about)
		if e.digest() != was {
			changed = append(changed, e)
		}
	}
	return changed
}

// Vouch is what the entry of [ActionForget] must have as After.
func Vouch(changed []Entry) (json.RawMessage, error) {
	r := redaction{Redacted: map[string]string{}}
	for i := range changed {
		r.Redacted[strconv.FormatInt(changed[i].Seq, 10)] = changed[i].digest()
	}
	return json.Marshal(r)
}

// Add takes what an entry of [ActionForget] vouches for. Of several the last one counts,
// so call it in the order of the chain.
func (r Redactions) Add(after json.RawMessage) {
	var told redaction
	if json.Unmarshal(after, &told) != nil {
		return
	}
	for seq, digest := range told.Redacted {
		if n, err := strconv.ParseInt(seq, 10, 64); err == nil {
			r[n] = digest
		}
	}
}

func renamed(names map[string]string, s string) string {
	if to, ok := names[s]; ok {
		return to
	}
	return s
}

// without is a JSON text with names replaced and, where it is about one of them, without
// notes. A text that has none of them stays as it is, byte for byte.
func without(raw json.RawMessage, names map[string]string, about bool) json.RawMessage {
	var v any
	if raw == nil || json.Unmarshal(raw, &v) != nil {
		return raw
	}
	v, changed := replaced(v, names, about)
	out, err := json.Marshal(v)
	if !changed || err != nil {
		return raw
	}
	return out
}

func replaced(v any, names map[string]string, about bool) (out any, changed bool) {
	switch x := v.(type) {
	case string:
		to, ok := names[x]
		if ok {
			return to, true
		}
	case []any:
		for i := range x {
			item, did := replaced(x[i], names, about)
			x[i], changed = item, changed || did
		}
	case map[string]any:
		for name := range x {
			if note, ok := x[name].(string); about && name == "note" && ok && note != "" {
				x[name], changed = "", true
				continue
			}
			item, did := replaced(x[name], names, about)
			x[name], changed = item, changed || did
		}
	}
	return v, changed
}
