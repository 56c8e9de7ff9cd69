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

// Plain makes a line of a program's output safe to show on a terminal: it removes
// control sequences and characters, which could overwrite other text, and invisible
// characters that change the order of text.
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
