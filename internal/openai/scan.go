package openai

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"tollgate/internal/media"
)

// maxDepth is how deep objects and arrays may nest; the document itself is 1.
const maxDepth = 64

// mediaBytes bounds how many bytes of text one picture, sound or file in a message
// counts for: its base64 is not tokenized, but the engine still makes tokens of it.
const mediaBytes = 4096

// kind is the kind of a JSON value, numbers split in two.
type kind uint8

const (
	null kind = iota
	boolTrue
	boolFalse
	integer  // a number without fraction and exponent
	fraction // any other number
	text
	array
	object
)

// scanner walks one document and accepts only what every JSON parser reads in
// the same way. It allocates nothing but the names of open objects. The bytes
// must be valid UTF-8: the caller has checked them once as a whole.
type scanner struct {
	buf   []byte
	pos   int
	depth int
	names names
	// textBytes sums the decoded size of the string values read so far, media
	// capped; numbers counts the numbers.
	textBytes int64
	numbers   int64
	// twice is the repeated name, after the error for a repeated name.
	twice []byte
	// media, where it is set, checks the URLs of pictures, sounds and films. inMedia
	// means that the current object has such a URL under "url".
	media   *media.Policy
	inMedia bool
}

// fail returns a syntax error at the current position. Its message is a constant and
// contains nothing of the document.
func (s *scanner) fail(what string) error {
	return &BadRequestError{Message: "The request body is not valid JSON: " + what + " at byte " + strconv.Itoa(s.pos) + "."}
}

func (s *scanner) space() {
	for s.pos < len(s.buf) {
		switch s.buf[s.pos] {
		case ' ', '\n', '\r', '\t':
			s.pos++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end (a byte that no JSON begins with).
func (s *scanner) peek() byte {
	if s.pos < len(s.buf) {
		return s.buf[s.pos]
	}
	return 0
}

// value reads one value. media caps how many bytes a string counts for.
func (s *scanner) value(media bool) (kind, error) {
	switch s.peek() {
	case '"':
		_, size, _, err := s.str()
		if media {
			size = min(size, mediaBytes)
		}
		s.textBytes += int64(size)
		return text, err
	case '{':
		return object, s.object()
	case '[':
		return array, s.array()
	case 't':
		return boolTrue, s.literal("true")
	case 'f':
		return boolFalse, s.literal("false")
	case 'n':
		return null, s.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number()
	}
	return null, s.fail("a value is missing")
}

func (s *scanner) literal(word string) error {
	if len(s.buf)-s.pos < len(word) || string(s.buf[s.pos:s.pos+len(word)]) != word {
		return s.fail("a value is misspelt")
	}
	s.pos += len(word)
	return nil
}

// open enters an object or array and tells whether it is empty, in which case
// it is closed already.
func (s *scanner) open(end byte) (empty bool, err error) {
	if s.depth == maxDepth {
		return false, s.fail("it nests deeper than " + strconv.Itoa(maxDepth) + " levels")
	}
	s.depth++
	s.pos++
	s.space()
	if s.peek() == end {
		s.pos++
		s.depth--
		return true, nil
	}
	return false, nil
}

// next steps over a comma (true) or the end of an object or array (false).
func (s *scanner) next(end byte) (more bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.pos++
		s.space()
		return true, nil
	case end:
		s.pos++
		s.depth--
		return false, nil
	}
	return false, s.fail("a comma or the end of a list or object is missing")
}

func (s *scanner) array() error {
	empty, err := s.open(']')
	for more := !empty; more && err == nil; {
		if _, err = s.value(false); err == nil {
			more, err = s.next(']')
		}
	}
	return err
}

func (s *scanner) object() error {
	empty, err := s.open('}')
	if empty || err != nil {
		return err
	}
	base := s.names.len()
	inMedia := s.inMedia
	for more := true; more; {
		key, err := s.key(base)
		if err != nil {
			return err
		}
		if err := s.memberValue(key, inMedia); err != nil {
			return err
		}
		if more, err = s.next('}'); err != nil {
			return err
		}
	}
	s.names.drop(base)
	return nil
}

// isMedia reports whether strings under this name are pictures, sounds or files, or
// their URLs.
func isMedia(key []byte) bool {
	switch string(key) {
	case "url", "data", "image_url", "audio_url", "video_url", "file_data":
		return true
	}
	return false
}

// key reads a member's name and the colon behind it, and refuses a name that
// the open object, whose names begin at base, has already.
func (s *scanner) key(base int) ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.fail("a name in double quotes is missing")
	}
	key, _, escaped, err := s.str()
	if err != nil {
		return nil, err
	}
	if escaped {
		key = unescape(key)
	}
	switch s.names.add(base, s.depth, key) {
	case nameTwice:
		s.twice = key
		return nil, s.fail("an object has the same name twice,")
	case nameTooMany:
		return nil, s.fail("there are too many names")
	case nameNew:
	}
	s.space()
	if s.peek() != ':' {
		return nil, s.fail("a colon is missing")
	}
	s.pos++
	s.space()
	return key, nil
}

// str reads a string and returns the bytes between its quotes, its size when
// decoded and whether it has escapes.
func (s *scanner) str() (raw []byte, size int, escaped bool, err error) {
	start := s.pos + 1
	s.pos = start
	saved := 0
	for {
		s.pos = plain(s.buf, s.pos)
		switch c := s.peek(); {
		case s.pos == len(s.buf):
			return nil, 0, false, s.fail("a string has no end")
		case c == '"':
			raw = s.buf[start:s.pos]
			s.pos++
			return raw, len(raw) - saved, escaped, nil
		case c == '\\':
			r, n := escape(s.buf[s.pos:])
			if n == 0 {
				return nil, 0, false, s.fail("a string has a bad escape")
			}
			escaped = true
			saved += n - utf8.RuneLen(r)
			s.pos += n
		default:
			return nil, 0, false, s.fail("a string has a bare control character")
		}
	}
}

// plain returns the index of the first byte at or after i that is a quote, a
// backslash or a control character, 32 bytes a step.
func plain(b []byte, i int) int {
	for ; i+32 <= len(b); i += 32 {
		w := b[i : i+32 : i+32]
		m0, m1 := marks(binary.LittleEndian.Uint64(w)), marks(binary.LittleEndian.Uint64(w[8:]))
		m2, m3 := marks(binary.LittleEndian.Uint64(w[16:])), marks(binary.LittleEndian.Uint64(w[24:]))
		switch {
		case m0|m1|m2|m3 == 0:
			continue
		case m0 != 0:
			return i + bits.TrailingZeros64(m0)/8
		case m1 != 0:
			return i + 8 + bits.TrailingZeros64(m1)/8
		case m2 != 0:
			return i + 16 + bits.TrailingZeros64(m2)/8
		}
		return i + 24 + bits.TrailingZeros64(m3)/8
	}
	for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// marks sets the highest bit of the first byte of w that is a control character, a
// quote or a backslash. It may also mark later bytes. It returns 0 where w has no such
// byte.
func marks(w uint64) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, slash := w^ones*'"', w^ones*'\\'
	// Borrows spread upwards only, so the lowest mark is always true.
	return ((w-ones*' ')&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs
}

// escape decodes the escape at the start of b and returns how long it is, 0 when it is
// none. Half a surrogate pair is not an escape: Python would keep it and fail later,
// because it is not text.
func escape(b []byte) (r rune, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch c := b[1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		return escapeUnicode(b)
	}
	return 0, 0
}

func escapeUnicode(b []byte) (r rune, n int) {
	hi, ok := hex4(b)
	switch {
	case !ok || hi >= 0xdc00 && hi <= 0xdfff:
		return 0, 0
	case hi < 0xd800 || hi > 0xdfff:
		return hi, 6
	}
	lo, ok := hex4(b[6:])
	if !ok || lo < 0xdc00 || lo > 0xdfff {
		return 0, 0
	}
	return (hi-0xd800)<<10 + (lo - 0xdc00) + 0x10000, 12
}

// hex4 reads \uXXXX.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape decodes the inside of a string that str has accepted.
func unescape(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			i++
			continue
		}
		r, n := escape(raw[i:])
		out = utf8.AppendRune(out, r)
		i += n
	}
	return out
}
