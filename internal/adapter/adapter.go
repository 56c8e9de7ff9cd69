// Package adapter has the one rule for names of LoRA adapters.
package adapter

import (
	"fmt"
	"regexp"
	"strings"
)

// MaxName is the longest name in bytes: with a suffix it still is a file's name.
const MaxName = 200

// Rule says in words what [Valid] checks.
var Rule = fmt.Sprintf("up to %d letters, digits, dots, dashes and underscores, beginning with a letter or digit, without two dots in a row", MaxName)

var form = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Valid reports whether an adapter may have the name: no path and no option can
// be built of it, and it is whole in a log, a header and an address.
func Valid(name string) bool {
	return len(name) <= MaxName && !strings.Contains(name, "..") && form.MatchString(name)
}
