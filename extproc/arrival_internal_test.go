package extproc

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestABudgetIsSharedAmongKeys(t *testing.T) {
	b := NewBudget(100, 1)
	for _, c := range []struct {
		key  string
		n    int64
		want Room
	}{
		{"a", 25, Granted},
		{"a", 1, KeyIsFull},
		{"b", 25, Granted},
		{"b", math.MaxInt64, KeyIsFull}, // a sum would overflow
		{"c", 25, Granted},
		{"d", 20, Granted},
		{"e", 6, AllIsFull},
		{"e", 5, Granted},
		{"f", math.MaxInt64, KeyIsFull},
	} {
		if got := b.Take(c.key, c.n); got != c.want {
			t.Errorf("%d for %s: got %q, want %q", c.n, c.key, got, c.want)
		}
	}
	b.Free("a", 25)
	if got := b.Take("a", 20); got != Granted || b.Used() != 95 {
		t.Errorf("after it was given back: %q, used %d", got, b.Used())
	}
	for key, n := range map[string]int64{"a": 20, "b": 25, "c": 25, "d": 20, "e": 5} {
		b.Free(key, n)
	}
	if len(b.keys) != 0 || b.Used() != 0 {
		t.Errorf("left over: %v, %d", b.keys, b.Used())
	}
}

func TestALimitWithoutQuarters(t *testing.T) {
	// One body of the largest size is always allowed, and never more than the whole.
	if b := NewBudget(40, 32); b.Take("a", 32) != Granted || b.Take("a", 1) != KeyIsFull {
		t.Error("a key cannot send one body, or more than one")
	}
	if b := NewBudget(math.MaxInt64, 1); b.Take("a", math.MaxInt64/4) != Granted || b.Take("a", math.MaxInt64) != KeyIsFull {
		t.Error("a huge limit overflows")
	}
}

func TestABodyInPiecesIsTheBody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ -~]{0,40}`).Draw(t, "text")
		value := map[string]any{"a": []any{text, map[string]any{text: `\"{[`}}, "b": strings.Repeat(text, rapid.IntRange(0, 9000).Draw(t, "times"))}
		body, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		a := arrival{}
		known := rapid.Bool().Draw(t, "known")
		if known {
			a.announced = int64(len(body))
		}
		taken := int64(0)
		for rest := body; ; {
			n := min(len(rest), rapid.IntRange(1, 100_000).Draw(t, "n"))
			room := a.room(n)
			a.held += room
			taken += room
			last := rest[:n]
			complete := a.add(last, false)
			rest = rest[n:]
			if complete != (len(rest) == 0) {
				t.Fatalf("complete: %v with %d bytes to come", complete, len(rest))
			}
			held := int64(0)
			for _, p := range a.pieces {
				held += int64(cap(*p))
			}
			if complete {
				whole := last
				if len(a.pieces) > 0 {
					whole = *a.join()
				}
				if !bytes.Equal(whole, body) {
					t.Fatalf("%d bytes are not the body of %d", len(whole), len(body))
				}
				break
			}
			if held != taken || taken > 4*a.size+smallPiece || taken > a.size+largePiece+a.size/2 {
				t.Fatalf("%d bytes came, %d were taken, %d are held", a.size, taken, held)
			}
		}
	})
}
