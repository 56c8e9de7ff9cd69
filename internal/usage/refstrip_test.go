package usage_test

import (
	"slices"

	"tollgate/internal/usage"
)

// strip removes usage from a whole stream the slow way: event by event, from
// decoded documents. It returns the documents that are left.
func strip(o usage.Options, body string) []any {
	var left []any
	waits := false // the last one gets the fingerprint of a usage-only one right behind it
	for _, e := range parseSSE(body) {
		waits = waits && !e.apart
		v, ok := decode([]byte(e.data))
		ob, isObject := v.(object)
		if !ok || !isObject {
			left, waits = append(left, e.data), false
			continue
		}
		choices := choicesOf(ob)
		_, has := get(ob, "usage").(object)
		if has && len(choices) == 0 && o.StripFinal {
			if stamps := all(ob, "system_fingerprint"); waits && len(stamps) > 0 {
				last := left[len(left)-1].(object)
				left[len(left)-1] = append(slices.Clone(last), stamps[len(stamps)-1])
			}
			waits = false
			continue
		}
		waits = o.StripFinal && ends(choices) && len(all(ob, "system_fingerprint")) == 0
		if has && len(choices) > 0 && o.StripRunning {
			ob = slices.DeleteFunc(ob, func(m member) bool { return m.Key == "usage" })
		}
		left = append(left, ob)
	}
	return left
}

// choicesOf are the elements of the choices of a document.
func choicesOf(o object) array {
	var choices array
	for _, m := range all(o, "choices") {
		list, _ := m.Value.(array)
		choices = append(choices, list...)
	}
	return choices
}

// ends reports whether one of the choices has a finish_reason.
func ends(choices array) bool {
	for _, c := range choices {
		choice, _ := c.(object)
		for _, m := range all(choice, "finish_reason") {
			if _, ok := m.Value.(string); ok {
				return true
			}
		}
	}
	return false
}

// all are the members of that name.
func all(o object, key string) object {
	return slices.DeleteFunc(slices.Clone(o), func(m member) bool { return m.Key != key })
}

func get(o object, key string) any {
	for _, m := range o {
		if m.Key == key {
			return m.Value
		}
	}
	return nil
}
