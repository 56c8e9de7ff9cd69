package main

import (
	"bytes"
	"io"
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
		"csv":   "name,n\n'=1+1,7\nb\x1b[31m,1000\n",
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

func TestCSVHasWhatTheJSONHas(t *testing.T) {
	type inner struct {
		N    *int64   `json:"n"`
		Tags []string `json:"tags"`
	}
	type outer struct {
		A     string           `json:"a"`
		Inner inner            `json:"inner"`
		Extra map[string]int64 `json:"extra,omitempty"`
	}
	seven := int64(-7)
	for want, things := range map[string][]outer{
		"a,inner.n,inner.tags,extra.x\n'=x,-7,p q,\nb,,,3\n": {
			{A: "=x", Inner: inner{&seven, []string{"p", "q"}}}, {A: "b", Extra: map[string]int64{"x": 3}},
		},
		"a,inner.n,inner.tags\n": nil,
	} {
		var out bytes.Buffer
		if err := showCSV(&out, things); err != nil || out.String() != want {
			t.Errorf("got\n%q, %v, want\n%q", out.String(), err, want)
		}
	}
}

func TestOneThing(t *testing.T) {
	for output, want := range map[string]string{
		"table": "seen", "": "seen", "json": "{\n  \"name\": \"x\",\n  \"n\": \"\"\n}\n", "jsonl": "{\"name\":\"x\",\"n\":\"\"}\n", "csv": "name,n\nx,\n",
	} {
		var out bytes.Buffer
		table := func(w io.Writer) error { _, err := io.WriteString(w, "seen"); return err }
		if err := showOne(&Env{Stdout: &out}, output, thing{Name: "x"}, table); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v", output, out.String(), err)
		}
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
