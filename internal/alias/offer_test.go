package alias_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/alias"
)

// rights are the names of a key; nil is all.
type rights []string

func (r rights) Allows(names ...string) bool {
	return r == nil || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(r, n) })
}

func table() *alias.Table {
	one := []alias.Target{{Model: "Qwen/Qwen3-8B", Weight: 1}}
	return alias.New([]alias.Alias{{Name: "chat", Targets: one}, {Name: "claude-*", Targets: one}, {Name: "shadow", Targets: one}})
}

var served = []string{"Qwen/Qwen3-8B", "claude-tuned", "shadow", "support"}

func TestWhoMayAskForWhat(t *testing.T) {
	for _, tt := range []struct {
		rights rights
		yes    []string
		no     []string
	}{
		{nil, []string{"chat", "claude-x", "claude-tuned", "Qwen/Qwen3-8B", "shadow", "anything"}, nil},
		// A key of an alias gets what stands behind it, and by no other name.
		{rights{"chat"}, []string{"chat"}, []string{"Qwen/Qwen3-8B", "CHAT", "chat ", " chat", "chat*", "cha*", "*", "", "claude-x", "shadow", "support"}},
		// A pattern: what it covers, but no model of its own that begins alike.
		{rights{"claude-*"}, []string{"claude-x", "claude-", "claude-*"}, []string{"claude-tuned", "Claude-x", "claude", "chat", "Qwen/Qwen3-8B"}},
		// A name that the pattern covers, and no other.
		{rights{"claude-x"}, []string{"claude-x"}, []string{"claude-y", "claude-*", "claude-", "claude-tuned"}},
		// A star in a key is a star, where no alias is written so.
		{rights{"Qwen/*"}, []string{"Qwen/*"}, []string{"Qwen/Qwen3-8B"}},
		{rights{"Qwen/Qwen3-8B"}, []string{"Qwen/Qwen3-8B"}, []string{"chat", "claude-x", "shadow"}},
		// An alias stands before a model of the same name, for its rights too.
		{rights{"shadow"}, []string{"shadow"}, []string{"support"}},
		{rights{}, nil, []string{"chat", "Qwen/Qwen3-8B", ""}},
	} {
		for _, name := range tt.yes {
			if !table().Allowed(name, tt.rights, in(served...)) {
				t.Errorf("%v: %q is refused", tt.rights, name)
			}
		}
		for _, name := range tt.no {
			if table().Allowed(name, tt.rights, in(served...)) {
				t.Errorf("%v: %q passes", tt.rights, name)
			}
		}
	}
}

func TestWhatIsOffered(t *testing.T) {
	for _, tt := range []struct {
		rights rights
		want   []string
	}{
		{nil, []string{"chat", "claude-*", "shadow", "Qwen/Qwen3-8B", "claude-tuned", "support"}},
		{rights{"chat"}, []string{"chat"}},
		{rights{"claude-x", "claude-*", "nothing", "support"}, []string{"claude-*", "support", "claude-x"}},
		{rights{"shadow", "shadow"}, []string{"shadow"}},
		{rights{}, nil},
	} {
		got := table().Offer(append(slices.Clone(served), "support"), tt.rights, tt.rights)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.rights, diff)
		}
		for _, name := range got {
			if !table().Allowed(name, tt.rights, in(served...)) {
				t.Errorf("%v: %q is offered and refused", tt.rights, name)
			}
		}
	}
}

func TestTheNearestName(t *testing.T) {
	names := []string{"chat", "claude-*", "Qwen/Qwen3-8B", "support"}
	for asked, want := range map[string]string{
		"Chat": "chat", "chta": "chat", "chatt": "chat", "qwen3-8b": "Qwen/Qwen3-8B", "claude-": "", "gpt-4o": "", "suppport": "support",
	} {
		if got := alias.Nearest(asked, names); got != want {
			t.Errorf("%q: got %q, want %q", asked, got, want)
		}
	}
}
