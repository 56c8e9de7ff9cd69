package request

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the transcripts and the diagram anew")

// TestTranscripts replays the lives in testdata. An event stands at the margin; the
// indented lines under it say what the request is then and what must be done. A line
// with "== " begins a new life.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	covered := map[arrow]bool{}
	for _, file := range files {
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := replay(t, file, string(old), covered)
		if *update {
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if diff := cmp.Diff(string(old), string(got)); diff != "" {
			t.Errorf("%s (go test ./internal/request -update writes it anew):\n%s", file, diff)
		}
	}
	for _, a := range reachable() {
		if !covered[a] {
			t.Errorf("no transcript shows a request that is %s: %s", a.from, a.row.describe())
		}
	}
}

// arrow is one row of the table, from one stage.
type arrow struct {
	row  *row
	from Stage
}

func replay(t *testing.T, file, text string, covered map[arrow]bool) []byte {
	t.Helper()
	var out bytes.Buffer
	var s State
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "  "):
			continue
		case strings.HasPrefix(line, "== "):
			s = State{}
		case line != "" && line[0] != '#':
			on := slices.Index(eventNames[:], line)
			if on <= 0 {
				t.Fatalf("%s: no event is called %q", file, line)
			}
			fmt.Fprintln(&out, line)
			next, do, err := s.Next(Event(on))
			if err != nil {
				fmt.Fprintln(&out, "  illegal")
				continue
			}
			follow(s, Event(on), func(r *row, from, _ State) { covered[arrow{r, from.Stage}] = true })
			fmt.Fprintf(&out, "  is %s\n", next)
			if do != 0 {
				fmt.Fprintf(&out, "  do %s\n", do)
			}
			s = next
			continue
		}
		fmt.Fprintln(&out, line)
	}
	return out.Bytes()
}

// follow tells each row that an event takes, with the states before and after it.
func follow(s State, on Event, tell func(r *row, from, to State)) {
	for r := fit(s, on); r != nil; r = fit(s, onItself) {
		from := s
		s = s.after(r)
		tell(r, from, s)
	}
}

func (r *row) describe() string {
	name := r.on.String()
	if r.on == onItself {
		name = "by itself"
	}
	return fmt.Sprintf("%s, to %+v, do %s", name, r.to, r.do)
}
