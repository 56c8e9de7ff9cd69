package vllmsim

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// The simulated tokenizer: a token is a run of at most maxPiece letters and
// digits together with one space before it, or any other single character. It
// looks at nothing else, so the tokens of joined texts are the joined tokens.
const maxPiece = 12

// The chat template: <start> role newline … <end> newline for a message and
// <start> assistant newline for the answer.
const (
	templatePerMessage = 5
	templateAnswer     = 3
)

// Token ids: bytes stand for themselves, the rest is hashed above them.
const (
	idStart    = 1
	idEnd      = 2
	idNewline  = 10
	firstWord  = 256
	vocabulary = 1 << 17
)

// CountTokens returns how many tokens text has here.
func CountTokens(text string) int {
	n := 0
	for len(text) > 0 {
		text = text[pieceLen(text):]
		n++
	}
	return n
}

// split cuts text into its tokens.
func split(text string) []string {
	var pieces []string
	for len(text) > 0 {
		k := pieceLen(text)
		pieces = append(pieces, text[:k])
		text = text[k:]
	}
	return pieces
}

// pieceLen returns the length in bytes of the first token of s, which is not empty.
func pieceLen(s string) int {
	i := 0
	if s[0] == ' ' {
		i = 1
	}
	runes := 0
	for i < len(s) && runes < maxPiece {
		size, word := wordRune(s[i:])
		if !word {
			break
		}
		i += size
		runes++
	}
	if runes > 0 {
		return i
	}
	_, size := utf8.DecodeRuneInString(s)
	return size
}

func wordRune(s string) (size int, word bool) {
	if c := s[0]; c < utf8.RuneSelf {
		return 1, 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	}
	r, size := utf8.DecodeRuneInString(s)
	return size, r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// tokenID is the id of one token.
func tokenID(piece string) int64 {
	if len(piece) == 1 {
		return int64(piece[0])
	}
	return firstWord + int64(hash64(piece)%(vocabulary-firstWord))
}

// tokenIDs are the ids of text.
func tokenIDs(text string) []int64 {
	var ids []int64
	for _, p := range split(text) {
		ids = append(ids, tokenID(p))
	}
	return ids
}

// words maps the ids of the simulator's own words back to them.
var words = func() map[int64]string {
	m := make(map[int64]string)
	for _, sentence := range sentences {
		for _, p := range sentence {
			m[tokenID(p)] = p
		}
	}
	return m
}()

// detokenize is the text of ids: bytes and the simulator's own words as they
// are, every other id as its number.
func detokenize(ids []int64) string {
	var b []byte
	for _, id := range ids {
		switch word, known := words[id]; {
		case known:
			b = append(b, word...)
		case id >= 0 && id < firstWord:
			b = append(b, byte(id))
		default:
			b = append(b, ' ')
			b = strconv.AppendInt(b, id, 10)
		}
	}
	return string(b)
}

// hash64 is FNV-1a over the parts, each closed by a zero byte. It must never
// change: texts are chosen by it.
func hash64(parts ...string) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	for _, p := range parts {
		for i := range len(p) {
			h = (h ^ uint64(p[i])) * prime
		}
		h *= prime
	}
	return h
}
