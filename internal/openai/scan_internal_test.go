package openai

import (
	"bytes"
	"testing"
)

func TestPlainStopsAtTheFirstByteThatIsNot(t *testing.T) {
	for length := range 100 {
		for _, stop := range []byte{0, 1, '\n', 0x1f, '"', '\\'} {
			for at := range length + 1 {
				text := bytes.Repeat([]byte{' ', '!', 0x7f, 0x80, 0xff, '#', '[', ']'}, 13)[:length]
				if at < length {
					text[at] = stop
				}
				if at+3 < length {
					text[at+3] = '"' // a later one does not count
				}
				for from := range min(at, 3) + 1 {
					if got := plain(text, from); got != at {
						t.Fatalf("%q at %d of %d, from %d: %d", stop, at, length, from, got)
					}
				}
			}
		}
	}
}
