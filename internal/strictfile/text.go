package strictfile

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// Text checks that data is UTF-8 text of at most limit bytes and returns it without
// its byte order mark. A problem is the first one, without its File.
func Text(data []byte, limit int64) ([]byte, *Problem) {
	if int64(len(data)) > limit {
		return nil, &Problem{Message: "is larger than " + size(limit), Suggestion: "another file was named, or it holds something else"}
	}
	for _, bom := range []string{"\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(data, []byte(bom)) {
			return nil, &Problem{Position: Position{1, 1}, Message: "is UTF-16", Suggestion: "save it as UTF-8"}
		}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if message, suggestion := refused(r, n); message != "" {
			return nil, &Problem{Position: At(data, i), Message: message, Suggestion: suggestion}
		}
		i += n
	}
	return data, nil
}

// refused says why a character of n bytes is no text; "" when it is.
func refused(r rune, n int) (message, suggestion string) {
	switch {
	case r == utf8.RuneError && n == 1:
		return "is not UTF-8 text", "save it as UTF-8"
	case r == 0:
		return "has a NUL byte", "this is binary or UTF-16; save it as UTF-8 text"
	case r == 0x7f || r < ' ' && r != '\n' && r != '\r' && r != '\t':
		return fmt.Sprintf("has the control character %U", r), "remove it"
	}
	return "", ""
}

func size(n int64) string {
	if n >= 1<<21 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
