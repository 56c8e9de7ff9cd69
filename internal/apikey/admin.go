package apikey

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// ErrLastAdmin says that an edit would leave nobody who can open /admin.
var ErrLastAdmin = errors.New("this is the last key that opens /admin; make another one of the user admin first")

// hasAdmin reports whether a key of the file opens /admin at now. The public
// default key does not count: it is worth nothing from another machine.
func (f *File) hasAdmin(now time.Time) bool {
	return slices.ContainsFunc(f.entries, func(e *entry) bool {
		k := e.record.key
		return k.Admin() && k.Enabled && !k.Default && !now.Before(k.NotBefore) && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
	})
}

// BadUser says what is wrong with the name of a user; "" when nothing is. It refuses a
// name that looks like "admin" and is not: readers of a report would take it for the
// administrator, and its author would expect that it opens /admin.
func BadUser(name string) string {
	switch {
	case strings.TrimSpace(name) != name:
		return "must not begin or end with white space"
	case strings.ContainsFunc(name, invisible):
		return "has a character that cannot be seen"
	case name != AdminUser && skeleton(name) == AdminUser:
		return `reads like "admin" and is not; write admin for a key that opens /admin, or another name`
	}
	return ""
}

// invisible are format characters, unassigned ones, and spaces that are no U+0020.
func invisible(r rune) bool {
	return r != ' ' && unicode.IsSpace(r) || unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Variation_Selector)
}

// lookAlikes are letters of other scripts, and digits, that read like one of the
// letters of "admin", lower case.
var lookAlikes = map[rune]rune{
	'а': 'a', 'α': 'a', 'ɑ': 'a', '@': 'a', '4': 'a', // Cyrillic, Greek, Latin alpha
	'ԁ': 'd', 'ժ': 'd', 'ɗ': 'd', // Cyrillic, Armenian, Latin hook
	'м': 'm', 'μ': 'm', 'ⅿ': 'm', 'ɱ': 'm', // Cyrillic, Greek
	'і': 'i', 'ı': 'i', 'ι': 'i', 'ɩ': 'i', 'l': 'i', '1': 'i', '|': 'i', '!': 'i', // Cyrillic, dotless, Greek
	'п': 'n', 'ո': 'n', 'η': 'n', 'ռ': 'n', 'ŋ': 'n', // Cyrillic, Armenian, Greek
}

// skeleton is what a name looks like: without accents and spaces, in lower case,
// look-alikes as the letters that they look like.
func skeleton(name string) string {
	var b strings.Builder
	for _, r := range norm.NFKD.String(strings.ToLower(norm.NFKC.String(name))) {
		switch latin, alike := lookAlikes[r]; {
		case alike:
			b.WriteRune(latin)
		case r == utf8.RuneError, unicode.IsMark(r), unicode.IsSpace(r):
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
