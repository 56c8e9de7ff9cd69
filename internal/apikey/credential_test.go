package apikey_test

import (
	"errors"
	"strings"
	"testing"

	"tollgate/internal/apikey"
)

func TestOneCredentialFromOneSource(t *testing.T) {
	long := "sk-" + strings.Repeat("x", apikey.MaxCredential-3)
	for _, c := range []struct {
		name          string
		authorization []string
		xAPIKey       []string
		want          string
		err           error
	}{
		{"nothing", nil, nil, "", apikey.ErrMissing},
		{"bearer", []string{"Bearer sk-abc"}, nil, "sk-abc", nil},
		{"scheme in any case", []string{"bEARER sk-abc"}, nil, "sk-abc", nil},
		{"bearer without sk-", []string{"Bearer abc"}, nil, "abc", nil},
		{"many spaces", []string{"  Bearer   sk-abc \t"}, nil, "sk-abc", nil},
		{"bare", []string{"sk-abc"}, nil, "sk-abc", nil},
		{"x-api-key", nil, []string{"sk-abc"}, "sk-abc", nil},
		{"x-api-key without sk-", nil, []string{"abc"}, "abc", nil},
		{"token bytes", []string{"Bearer aZ09-._~+/="}, nil, "aZ09-._~+/=", nil},
		{"longest", []string{long}, nil, long, nil},
		{"too long", []string{long + "x"}, nil, "", apikey.ErrMalformed},
		{"empty authorization", []string{""}, nil, "", apikey.ErrMissing},
		{"scheme only", []string{"Bearer"}, nil, "", apikey.ErrMissing},
		{"scheme and spaces", []string{"Bearer   "}, nil, "", apikey.ErrMissing},
		{"empty x-api-key", nil, []string{" "}, "", apikey.ErrMissing},
		{"bare without sk-", []string{"abc"}, nil, "", apikey.ErrMalformed},
		{"another scheme", []string{"Basic c2stYWJj"}, nil, "", apikey.ErrMalformed},
		{"scheme twice", []string{"Bearer Bearer sk-abc"}, nil, "", apikey.ErrMalformed},
		{"both headers, one secret", []string{"Bearer sk-abc"}, []string{"sk-abc"}, "sk-abc", nil},
		{"both headers, one secret, bare", []string{"sk-abc"}, []string{" sk-abc "}, "sk-abc", nil},
		{"both headers, x-api-key empty", []string{"Bearer sk-abc"}, []string{""}, "sk-abc", nil},
		{"both headers, authorization empty", []string{"Bearer "}, []string{"sk-abc"}, "sk-abc", nil},
		{"both headers, two secrets", []string{"Bearer sk-abc"}, []string{"sk-abd"}, "", apikey.ErrMalformed},
		{"both headers, a prefix", []string{"Bearer sk-abc"}, []string{"sk-ab"}, "", apikey.ErrMalformed},
		{"both headers, one of another scheme", []string{"Basic x"}, []string{"sk-abc"}, "", apikey.ErrMalformed},
		{"both headers, one malformed", []string{"Bearer sk-abc"}, []string{"a b"}, "", apikey.ErrMalformed},
		{"both empty", []string{""}, []string{""}, "", apikey.ErrMissing},
		{"two empty lines", nil, []string{"", ""}, "", apikey.ErrMalformed},
		{"two lines beside a good one", []string{"Bearer sk-abc"}, []string{"sk-abc", "sk-abc"}, "", apikey.ErrMalformed},
		{"two lines", []string{"Bearer sk-abc", "Bearer sk-abc"}, nil, "", apikey.ErrMalformed},
		{"two x-api-key", nil, []string{"sk-abc", "sk-abc"}, "", apikey.ErrMalformed},
		{"comma", []string{"Bearer sk-abc,sk-def"}, nil, "", apikey.ErrMalformed},
		{"comma and space", []string{"Bearer sk-abc, Bearer sk-def"}, nil, "", apikey.ErrMalformed},
		{"space inside", []string{"Bearer sk-abc def"}, nil, "", apikey.ErrMalformed},
		{"space inside a bare one", []string{"sk-abc def"}, nil, "", apikey.ErrMalformed},
		{"tab for a space", []string{"Bearer\tsk-abc"}, nil, "", apikey.ErrMalformed},
		{"quotes", []string{`Bearer "sk-abc"`}, nil, "", apikey.ErrMalformed},
		{"control byte", []string{"Bearer sk-\x00abc"}, nil, "", apikey.ErrMalformed},
		{"line break", []string{"Bearer sk-abc\r\nx: y"}, nil, "", apikey.ErrMalformed},
		{"beyond ASCII", []string{"Bearer sk-äbc"}, nil, "", apikey.ErrMalformed},
		{"broken UTF-8", nil, []string{"sk-\xff"}, "", apikey.ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := apikey.ParseCredential(c.authorization, c.xAPIKey)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %q, %v, want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}

func FuzzParseCredential(f *testing.F) {
	for _, s := range []string{"", "Bearer sk-abc", "sk-abc", "bearer  x ", "Basic eDp5", "Bearer a,b", "Bearer \x00"} {
		f.Add(s, "", true, false)
		f.Add("", s, false, true)
		f.Add(s, s, true, true)
	}
	f.Fuzz(func(t *testing.T, authorization, xAPIKey string, withA, withX bool) {
		var a, x []string
		if withA {
			a = []string{authorization}
		}
		if withX {
			x = []string{xAPIKey}
		}
		got, err := apikey.ParseCredential(a, x)
		if (err == nil) != (got != "") {
			t.Fatalf("got %q with %v", got, err)
		}
		if err != nil {
			return
		}
		if len(got) > apikey.MaxCredential || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ',' }) {
			t.Fatalf("got the secret %q", got)
		}
		checkSource(t, got, authorization, xAPIKey, withA, withX)
		if again, err := apikey.ParseCredential(nil, []string{got}); again != got || err != nil {
			t.Fatalf("its own result: got %q, %v", again, err)
		}
	})
}

// checkSource: a secret stands in a header that was sent, and no other one beside it.
func checkSource(t *testing.T, got, authorization, xAPIKey string, withA, withX bool) {
	t.Helper()
	inA, inX := withA && strings.Contains(authorization, got), withX && strings.Contains(xAPIKey, got)
	if !inA && !inX {
		t.Fatalf("got %q out of nothing", got)
	}
	if key := strings.Trim(xAPIKey, " \t"); withX && key != "" && key != got {
		t.Fatalf("got %q beside another value of x-api-key", got)
	}
}
