package request

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const page = "../../docs/architecture.md"

// TestTheDiagramIsTheTable compares the two diagrams of docs/architecture.md with
// the table: the stages, and the row in the ledger.
func TestTheDiagramIsTheTable(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	old, next := string(text), string(text)
	for mark, diagram := range map[string]string{
		"stages": mermaid(func(s State) string { return s.Stage.String() }),
		"row":    mermaid(func(s State) string { return s.Ledger.String() }),
	} {
		begin, end := "<!-- "+mark+": written by go test ./internal/request -update -->\n", "<!-- end of "+mark+" -->"
		before, rest, found := strings.Cut(next, begin)
		_, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("%s has no lines %q and %q", page, begin, end)
		}
		next = before + begin + "```mermaid\n" + diagram + "```\n" + end + after
	}
	if *update {
		if err := os.WriteFile(page, []byte(next), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if next != old {
		t.Errorf("%s does not show the table: go test ./internal/request -update", page)
	}
}

// mermaid draws the table as one side of the state moves.
func mermaid(side func(State) string) string {
	type edge struct{ from, to string }
	labels := map[edge][]string{}
	var order []edge
	for l := range lives() {
		for on := onItself + 1; on < events; on++ {
			if !l.can(on) {
				continue
			}
			follow(l.State, on, func(r *row, from, to State) {
				e := edge{side(from), side(to)}
				if e.from == e.to {
					return
				}
				label := cmp.Or(r.on.String(), "by itself")
				if r.do != 0 {
					label += " / " + r.do.String()
				}
				if labels[e] == nil {
					order = append(order, e)
				}
				if !slices.Contains(labels[e], label) {
					labels[e] = append(labels[e], label)
				}
			})
		}
	}
	names := slices.Concat(stageNames[:], ledgerNames[:])
	rank := func(e edge) int { return slices.Index(names, e.from)*100 + slices.Index(names, e.to) }
	slices.SortFunc(order, func(x, y edge) int { return rank(x) - rank(y) })
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	for _, e := range order {
		slices.Sort(labels[e])
		fmt.Fprintf(&b, "    %s --> %s: %s\n", e.from, e.to, strings.Join(labels[e], "<br>"))
	}
	return b.String()
}
