package extauthz

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTheEndUserIsTheBestNameThatIsSaid(t *testing.T) {
	for _, c := range []struct {
		email, id, name, want string
	}{
		{"", "", "", ""},
		{"ann@example.org", "4f2c", "Ann", "ann@example.org"},
		{"", "4f2c", "Ann", "4f2c"},
		{" \t", "4f2c", "Ann", "4f2c"},
		{"", "", "Ann%20%C3%96berg", "Ann Öberg"},
		{"", "", "100%", "100%"},
		{"ann\x00@\x1b[31mexample.org\r\n", "", "", "ann@[31mexample.org"},
		{"\u202eeve\u200b@example.org", "", "", "eve@example.org"},
		{"", "", "%E2%80%AE%00", ""},
		{"\xff\xfeann", "", "", "ann"},
		{strings.Repeat("ö", 500), "", "", strings.Repeat("ö", maxEndUser/2)},
		{"a" + strings.Repeat("ö", 500), "", "", "a" + strings.Repeat("ö", maxEndUser/2-1)},
	} {
		h := headers{userEmail: c.email, userID: c.id, userName: c.name}
		if got := h.endUser(); got != c.want {
			t.Errorf("email %q, id %q, name %q: %q, want %q", c.email, c.id, c.name, got, c.want)
		}
	}
}

func FuzzEndUser(f *testing.F) {
	f.Add("ann@example.org", "%C3%96")
	f.Fuzz(func(t *testing.T, email, name string) {
		h := headers{userEmail: email, userName: name}
		got := h.endUser()
		if len(got) > maxEndUser || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\r\n\t\u202e") || got != strings.TrimSpace(got) {
			t.Errorf("%q", got)
		}
	})
}
