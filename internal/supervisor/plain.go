package supervisor

import (
	"regexp"
	"strings"
	"unicode"
)

// escape is a terminal's control sequence: a command with its parameters (CSI),
// a text for the terminal itself up to its end (OSC, DCS, PM, APC), or a short
// one.
var escape = regexp.MustCompile("(?:\x1b\\[|\u009b)[0-?]*[ -/]*[@-~]?|(?:\x1b[\\]P^_X]|[\u009d\u0090\u009e\u009f])[^\x07\x1b\u009c]*(?:\x07|\x1b\\\\|\u009c)?|\x1b[ -/]*[0-~]?")

// Plain is a line that a program has written as it may be shown on somebody's
// terminal: without control sequences and characters, which could rewrite what
// stands there, and without the invisible ones that turn the order of text.
func Plain(line string) string {
	line = escape.ReplaceAllString(strings.ToValidUTF8(line, "\uFFFD"), "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return r
		case unicode.IsControl(r):
			return ' '
		case unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, line)
}
