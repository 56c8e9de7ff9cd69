package alias_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/alias"
)

func in(models ...string) func(string) bool {
	return func(m string) bool { return slices.Contains(models, m) }
}

func TestSharesAreKept(t *testing.T) {
	const requests = 10_000
	for _, tt := range []struct {
		weights []int
		ready   []string
		want    []float64 // of a, b, c
	}{
		{[]int{90, 10}, []string{"a", "b"}, []float64{.9, .1}},
		{[]int{1, 1, 1}, []string{"a", "b", "c"}, []float64{1. / 3, 1. / 3, 1. / 3}},
		{[]int{999, 1}, []string{"a", "b"}, []float64{.999, .001}},
		{[]int{50, 40, 10}, []string{"b", "c"}, []float64{0, .8, .2}}, // the share of one that is away is shared
		{[]int{90, 10}, []string{"b"}, []float64{0, 1}},
		{[]int{1 << 30, 1 << 30}, []string{"a", "b"}, []float64{.5, .5}},
	} {
		a := alias.Alias{Name: "chat"}
		for i, w := range tt.weights {
			a.Targets = append(a.Targets, alias.Target{Model: string(rune('a' + i)), Weight: w})
		}
		table := alias.New([]alias.Alias{a})
		got := map[string]int{}
		for n := range requests {
			c := table.Choose("chat", in(), in(tt.ready...))
			got[c.Model]++
			// Even over a few: a canary is not hit ten times in a row.
			for i, share := range tt.want {
				if want := share * float64(n+1); float64(got[string(rune('a'+i))])-want > 4 {
					t.Fatalf("%v: after %d requests %v", tt.weights, n+1, got)
				}
			}
		}
		for i, share := range tt.want {
			if off := float64(got[string(rune('a'+i))])/requests - share; off > .0005 || off < -.0005 {
				t.Errorf("%v ready %v: got %v", tt.weights, tt.ready, got)
			}
		}
	}
}

func TestWhichNameMeansWhat(t *testing.T) {
	table := alias.New([]alias.Alias{
		{Name: "chat", Targets: []alias.Target{{Model: "m1", Weight: 1}}},
		{Name: "claude-*", Targets: []alias.Target{{Model: "m1", Weight: 1}}, Fallback: []string{"m2", "m3"}},
		{Name: "claude-haiku-*", Targets: []alias.Target{{Model: "m2", Weight: 1}}},
		{Name: "m9", Targets: []alias.Target{{Model: "m1", Weight: 1}}},
	})
	listed := in("m1", "m2", "m3", "m9", "claude-local")
	for _, tt := range []struct {
		name  string
		ready []string
		want  alias.Choice
	}{
		{"chat", []string{"m1"}, alias.Choice{Model: "m1", Alias: "chat"}},
		{"Chat", []string{"m1"}, alias.Choice{Model: "Chat"}},
		{"chat ", []string{"m1"}, alias.Choice{Model: "chat "}},
		{"claude-x", []string{"m1"}, alias.Choice{Model: "m1", Alias: "claude-*"}},
		{"claude-", []string{"m1"}, alias.Choice{Model: "m1", Alias: "claude-*"}},
		{"claude-*", []string{"m1"}, alias.Choice{Model: "m1", Alias: "claude-*"}},
		{"claude", []string{"m1"}, alias.Choice{Model: "claude"}},
		{"claude-haiku-4", []string{"m1", "m2"}, alias.Choice{Model: "m2", Alias: "claude-haiku-*"}},
		{"claude-haiku-4", []string{"m1"}, alias.Choice{Alias: "claude-haiku-*"}},
		{"claude-x", []string{"m3", "m2"}, alias.Choice{Model: "m2", Alias: "claude-*", Fallback: true}},
		{"claude-x", []string{"m3"}, alias.Choice{Model: "m3", Alias: "claude-*", Fallback: true}},
		{"claude-x", nil, alias.Choice{Alias: "claude-*"}},
		{"claude-local", nil, alias.Choice{Model: "claude-local"}},           // a listed model is itself, ready or not
		{"m9", []string{"m1", "m9"}, alias.Choice{Model: "m1", Alias: "m9"}}, // but not under an exact alias
		{"m1", []string{"m1"}, alias.Choice{Model: "m1"}},
		{"", nil, alias.Choice{}},
		{"claude-\n", []string{"m1"}, alias.Choice{Model: "claude-\n"}},
		{"claude-" + strings.Repeat("x", 249), []string{"m1"}, alias.Choice{Model: "m1", Alias: "claude-*"}},
		{"claude-" + strings.Repeat("x", 250), []string{"m1"}, alias.Choice{Model: "claude-" + strings.Repeat("x", 250)}},
	} {
		if diff := cmp.Diff(tt.want, table.Choose(tt.name, listed, in(tt.ready...))); diff != "" {
			t.Errorf("%q with %v ready (-want +got):\n%s", tt.name, tt.ready, diff)
		}
		found, ok := table.Find(tt.name, listed)
		if ok != (tt.want.Alias != "") || found.Name != tt.want.Alias {
			t.Errorf("%q: found %q %v", tt.name, found.Name, ok)
		}
	}
}

func TestTheEmptyTable(t *testing.T) {
	var none *alias.Table
	if c := none.Choose("m1", in("m1"), in()); c != (alias.Choice{Model: "m1"}) {
		t.Errorf("got %+v", c)
	}
	if len(none.All()) != 0 {
		t.Error("it has aliases")
	}
}

func TestModelsOfAnAlias(t *testing.T) {
	a := alias.Alias{Name: "x", Targets: []alias.Target{{Model: "a", Weight: 1}, {Model: "b", Weight: 1}}, Fallback: []string{"c", "a"}}
	if diff := cmp.Diff([]string{"a", "b", "c"}, a.Models()); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkChoose(b *testing.B) {
	table := alias.New([]alias.Alias{{Name: "chat", Targets: []alias.Target{{Model: "a", Weight: 90}, {Model: "b", Weight: 10}}}})
	ready := in("a", "b")
	b.ReportAllocs()
	for b.Loop() {
		table.Choose("chat", ready, ready)
	}
}
