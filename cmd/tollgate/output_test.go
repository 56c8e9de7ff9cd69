package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

type thing struct {
	Name string `json:"name"`
	N    string `json:"n"`
}

var thingColumns = []column[thing]{
	{name: "the name", cell: func(t thing) string { return t.Name }},
	{name: "n", right: true, cell: func(t thing) string { return t.N }},
}

func TestOutputs(t *testing.T) {
	things := []thing{{"=1+1", "7"}, {"b\x1b[31m", "1000"}}
	for output, want := range map[string]string{
		"table": "THE NAME       N\n=1+1           7\n\"b\\x1b[31m\"  1000\n",
		"csv":   "the_name,n\n'=1+1,7\nb\x1b[31m,1000\n",
		"jsonl": "{\"name\":\"=1+1\",\"n\":\"7\"}\n{\"name\":\"b\\u001b[31m\",\"n\":\"1000\"}\n",
	} {
		var out bytes.Buffer
		if err := show(&Env{Stdout: &out}, output, things, thingColumns...); err != nil {
			t.Fatal(err)
		}
		if output == "table" { // the gap between columns is the library's
			want, got := strings.Fields(want), strings.Fields(out.String())
			if strings.Join(want, "|") != strings.Join(got, "|") {
				t.Errorf("%s:\n%q\nwant\n%q", output, got, want)
			}
			continue
		}
		if out.String() != want {
			t.Errorf("%s:\n%q\nwant\n%q", output, out.String(), want)
		}
	}
	var out bytes.Buffer
	if err := show(&Env{Stdout: &out}, "json", []thing(nil), thingColumns...); err != nil || out.String() != "[]\n" {
		t.Errorf("nothing as JSON: %q, %v", out.String(), err)
	}
}

func TestAWideTableFits(t *testing.T) {
	for _, terminal := range []int{80, 40, 120} {
		widths := []int{8, 20, 90, 12, 60}
		fit(widths, terminal)
		total := 2 * (len(widths) - 1)
		for _, w := range widths {
			total += w
		}
		if total > max(terminal, len(widths)*narrow+8) {
			t.Errorf("%d columns on a terminal of %d: %v", total, terminal, widths)
		}
	}
	if got := cut(strings.Repeat("ä", 50), 10); utf8.RuneCountInString(got) != 10 || !strings.HasSuffix(got, "…") {
		t.Errorf("cut: %q", got)
	}
}
