package config

import (
	"reflect"
	"strconv"
	"strings"

	"tollgate/internal/spelling"
)

// longestWord is the length in bytes above which a word is not compared: it is far from
// every key.
const longestWord = 64

// nearest returns the candidate that is a typing mistake away from word, "" when none
// is close.
func nearest(word string, candidates []string) string {
	if len(word) > longestWord {
		return ""
	}
	best, at := "", len(word)/3+1
	for _, c := range candidates {
		if d := spelling.Distance(strings.ToLower(word), c); d <= at && (best == "" || d < at) {
			best, at = c, d
		}
	}
	return best
}

// suggestKey suggests a known key in place of an unknown one: one with a similar name,
// the same name in another section, or the list of all keys of the section.
func suggestKey(word string, t reflect.Type, prefix string) string {
	names := fieldNames(t)
	if n := nearest(word, names); n != "" {
		return "did you mean " + strconv.Quote(n) + "?"
	}
	if p := elsewhere(word, reflect.TypeFor[Config](), ""); p != "" && p != join(prefix, word) {
		return "did you mean " + strconv.Quote(p) + "?"
	}
	return "known here: " + strings.Join(names, ", ")
}

// elsewhere finds a key of that exact name in any section.
func elsewhere(word string, t reflect.Type, prefix string) string {
	for f := range t.Fields() {
		path := join(prefix, f.Tag.Get("yaml"))
		if f.Tag.Get("yaml") == word {
			return path
		}
		if f.Type.Kind() == reflect.Struct {
			if p := elsewhere(word, f.Type, path); p != "" {
				return p
			}
		}
	}
	return ""
}

// fieldNames are the YAML names of a struct of this package, in order.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("yaml")
	}
	return names
}

func join(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}
