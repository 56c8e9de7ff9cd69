package ticket_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"tollgate/internal/ticket"
)

func sealer(t *testing.T, keys ...string) *ticket.Sealer {
	t.Helper()
	s := new(ticket.Sealer)
	if err := s.Use(keys); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnotherProcessOpensWhatWasSealed(t *testing.T) {
	old, fresh := ticket.NewKey(), ticket.NewKey()
	before, now, after := sealer(t, old), sealer(t, fresh, old), sealer(t, fresh)
	for _, facts := range []string{"", "x", strings.Repeat("fact ", 1000)} {
		for _, s := range []*ticket.Sealer{before, now} {
			if got, err := now.Open(s.Seal([]byte(facts))); err != nil || string(got) != facts {
				t.Errorf("got %q, %v", got, err)
			}
		}
	}
	if _, err := after.Open(before.Seal(nil)); !errors.Is(err, ticket.ErrForeign) {
		t.Errorf("a key that was dropped: got %v, want ErrForeign", err)
	}
	if now.Current() != fresh {
		t.Error("the first key is not the one that seals")
	}
}

func TestWhatIsSealedCannotBeReadOrMade(t *testing.T) {
	s := sealer(t, ticket.NewKey())
	facts := []byte("the key's digest")
	sealed := s.Seal(facts)
	if bytes.Contains([]byte(sealed), facts) || sealed == s.Seal(facts) {
		t.Error("the facts show")
	}
	for i := range sealed {
		forged := []byte(sealed)
		forged[i] ^= 1
		if got, err := s.Open(string(forged)); err == nil {
			t.Fatalf("character %d changed: opened %q", i, got)
		}
		if got, err := s.Open(sealed[:i]); err == nil {
			t.Fatalf("cut to %d characters: opened %q", i, got)
		}
	}
}

func TestASealerWithoutKeysSealsNothing(t *testing.T) {
	var s ticket.Sealer
	if got := s.Seal([]byte("x")); got != "" || s.Current() != "" {
		t.Errorf("got %q", got)
	}
	if _, err := s.Open("12345678xx"); !errors.Is(err, ticket.ErrForeign) {
		t.Errorf("got %v, want ErrForeign", err)
	}
}

func TestAKeyThatIsNoneIsRefusedAndNotShown(t *testing.T) {
	good := ticket.NewKey()
	s := sealer(t, good)
	for _, bad := range []string{"", "secret", "12345678.zz", good + "00", good[1:], strings.Replace(good, ".", "", 1)} {
		if err := s.Use([]string{good, bad}); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if s.Current() != good {
		t.Error("the keys have changed")
	}
}

func FuzzOpen(f *testing.F) {
	s := new(ticket.Sealer)
	if err := s.Use([]string{ticket.NewKey()}); err != nil {
		f.Fatal(err)
	}
	f.Add(s.Seal([]byte("facts")))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if facts, err := s.Open(text); err == nil && string(facts) != "facts" {
			t.Errorf("opened %q from %q", facts, text)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	s := new(ticket.Sealer)
	_ = s.Use([]string{ticket.NewKey()})
	facts := bytes.Repeat([]byte("x"), 400)
	for b.Loop() {
		if _, err := s.Open(s.Seal(facts)); err != nil {
			b.Fatal(err)
		}
	}
}
