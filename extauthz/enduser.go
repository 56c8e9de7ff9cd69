package extauthz

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEndUser is the longest name of an end user in bytes; what is longer is cut.
const maxEndUser = 128

// endUser returns the person whom Open WebUI names in its headers, "" where it names
// nobody. The address of mail is first: it is unique and people can read it. The id is
// unique, the name is neither.
//
// https://docs.openwebui.com/getting-started/env-configuration, ENABLE_FORWARD_USER_INFO_HEADERS.
func (h *headers) endUser() string {
	for _, said := range []string{h.userEmail, h.userID, unescaped(h.userName)} {
		if name := cleaned(said); name != "" {
			return name
		}
	}
	return ""
}

// unescaped undoes the percent-encoding in which Open WebUI sends names.
func unescaped(name string) string {
	if plain, err := url.PathUnescape(name); err == nil {
		return plain
	}
	return name
}

// cleaned is text that every ledger can hold and every screen can show: UTF-8 without
// characters that control or cannot be seen, without space around it, of at most
// [maxEndUser] bytes.
func cleaned(text string) string {
	if len(text) > 4*maxEndUser { // what follows is bounded too
		text = text[:4*maxEndUser]
	}
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r != ' ' && !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	text = strings.TrimSpace(text)
	for len(text) > maxEndUser {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return strings.TrimSpace(text)
}
