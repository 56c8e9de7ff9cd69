package supervisor_test

import (
	"testing"

	"tollgate/internal/supervisor"
)

func TestLinesForATerminalAreText(t *testing.T) {
	for line, want := range map[string]string{
		"INFO loading 3/4 ünïcode":                 "INFO loading 3/4 ünïcode",
		"a\tb":                                     "a\tb",
		"\x1b[1;31mERROR\x1b[0m no device":         "ERROR no device",
		"\x1b[2J\x1b[Hroot@host:~# ":               "root@host:~# ",
		"\x1b]0;title\x07after":                    "after",
		"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\": "link",
		"\x1bP1$r0m\x1b\\x":                        "x",
		"\u009b31mred":                             "red",
		"\x1b]52;c;bWFsd2FyZQ==":                   "",
		"one\rtwo\x07\x00":                         "one two  ",
		"\x1bc\x1b(Bx":                             "x",
		"bad \xff byte":                            "bad \uFFFD byte",
		"abc\u202edef\u200b":                       "abcdef",
		"\x1b":                                     "",
		"\x1b[":                                    "",
	} {
		if got := supervisor.Plain(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
